// Times the two dcap-qvl builds on the one input that stdin brings. The WebAssembly
// build has Intel's root compiled in: its bytes are replaced, see
// test/differential/testdata/qvl/oracle.mjs.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(import.meta.url);
const js = require("@phala/dcap-qvl");
const { TRUSTED_ROOT_CA_DER } = require("@phala/dcap-qvl/src/constants.js");
const web = await import("@phala/dcap-qvl-web/dcap-qvl-web.js");
const m = JSON.parse(readFileSync(0, "utf8"));
const root = Buffer.from(m.root, "base64");
const quote = Buffer.from(m.quote, "base64");

const length = (n) => (n < 128 ? [n] : n < 256 ? [0x81, n] : [0x82, n >> 8, n & 255]);
function resized(der, n) {
  const size = (at) => {
    const l = der[at + 1];
    if (l < 128) return 2 + l;
    return l === 0x81 ? 3 + der[at + 2] : 4 + der[at + 2] * 256 + der[at + 3];
  };
  const tbsAt = der[1] < 128 ? 2 : 2 + (der[1] & 127);
  const algAt = tbsAt + size(tbsAt);
  const head = der.subarray(tbsAt, algAt + size(algAt));
  for (let bits = 1; bits < n; bits++) {
    const signature = Buffer.from([3, ...length(bits + 1), 0, ...new Array(bits).fill(1)]);
    const body = Buffer.concat([head, signature]);
    const out = Buffer.concat([Buffer.from([0x30, ...length(body.length)]), body]);
    if (out.length === n) return out;
  }
  throw new Error(`no certificate of ${n} bytes can hold the root`);
}
const module = readFileSync(require.resolve("@phala/dcap-qvl-web/dcap-qvl-web_bg.wasm"));
const old = Buffer.from(TRUSTED_ROOT_CA_DER);
resized(root, old.length).copy(module, module.indexOf(old));
web.initSync({ module });

const ops = {
  "dcap-qvl, JavaScript build": () => js.QuoteVerifier.newWithRootCa(root).verify(quote, m.collateral, m.at),
  "dcap-qvl, WebAssembly build": () => web.js_verify(new Uint8Array(quote), m.collateral, BigInt(m.at)),
};
const times = {};
for (const [name, run] of Object.entries(ops)) {
  for (let i = 0; i < 20; i++) run(); // the compiler learns
  times[name] = [];
}
for (let i = 0; i < m.rounds; i++) {
  for (const [name, run] of Object.entries(ops)) {
    const start = process.hrtime.bigint();
    run();
    times[name].push(Number(process.hrtime.bigint() - start) / 1000);
  }
}
for (const [name, list] of Object.entries(times)) {
  list.sort((a, b) => a - b);
  const at = (p) => list[Math.floor(p * (list.length - 1))];
  console.log(JSON.stringify({ name, p10: at(0.1), p50: at(0.5), p99: at(0.99) }));
}
