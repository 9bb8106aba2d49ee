// Asks the two dcap-qvl builds about one input per line of stdin, and answers on
// stdout: {"js": {...}, "wasm": {...}}, each with ok, status and error.
//
// The WebAssembly build has Intel's root compiled in. The first line brings the
// root to trust instead, which is put in its place inside the module: only its name
// and key count there, so that it is padded to the same length in its signature.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(import.meta.url);
const js = require("@phala/dcap-qvl");
const { TRUSTED_ROOT_CA_DER } = require("@phala/dcap-qvl/src/constants.js");
const web = await import("@phala/dcap-qvl-web/dcap-qvl-web.js");

const length = (n) => (n < 128 ? [n] : n < 256 ? [0x81, n] : [0x82, n >> 8, n & 255]);

// resized is a certificate of exactly n bytes with the tbsCertificate of der.
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

function patched(root) {
  const module = readFileSync(require.resolve("@phala/dcap-qvl-web/dcap-qvl-web_bg.wasm"));
  const old = Buffer.from(TRUSTED_ROOT_CA_DER);
  const at = module.indexOf(old);
  if (at < 0 || module.indexOf(old, at + 1) >= 0) throw new Error("Intel's root is not in the module exactly once");
  resized(root, old.length).copy(module, at);
  return module;
}

function attempt(fn) {
  try {
    const r = fn();
    return { ok: true, status: r.status };
  } catch (e) {
    let text = String(e?.message ?? e);
    for (let c = e?.cause; c; c = c.cause) text += ": " + String(c.message ?? c);
    return { ok: false, error: text };
  }
}

let root;
for await (const line of createInterface({ input: process.stdin })) {
  const m = JSON.parse(line);
  if (m.root) {
    root = Buffer.from(m.root, "base64");
    web.initSync({ module: patched(root) });
    console.log("{}");
    continue;
  }
  const quote = Buffer.from(m.quote, "base64");
  const answer = {
    js: attempt(() => js.QuoteVerifier.newWithRootCa(root).verify(quote, m.collateral, m.at)),
    wasm: attempt(() => web.js_verify(new Uint8Array(quote), m.collateral, BigInt(m.at))),
  };
  console.log(JSON.stringify(answer));
}
