// Compiles src/*.sol with the pinned solc and writes artifacts/<name>.json
// ({abi, bin, deployedBin}). Usage: node compile.mjs OUTDIR
// The settings are part of the result: changing one changes every bytecode.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(import.meta.url);
const solc = require("solc");
const out = process.argv[2];
const wanted = ["DstackKms", "DstackApp", "ERC1967Proxy", "Multicall3"];

const sources = {};
for (const f of readdirSync("src").sort()) {
  if (f.endsWith(".sol")) sources[`src/${f}`] = { content: readFileSync(join("src", f), "utf8") };
}
const input = {
  language: "Solidity",
  sources,
  settings: {
    evmVersion: "cancun",
    optimizer: { enabled: true, runs: 200 },
    // No metadata in the code: it would tie the bytecode to paths and comments.
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "storageLayout"] } },
  },
};
const read = (path) => {
  try {
    return { contents: readFileSync(join("node_modules", path), "utf8") };
  } catch (e) {
    return { error: String(e) };
  }
};
const result = JSON.parse(solc.compile(JSON.stringify(input), { import: read }));
for (const e of result.errors ?? []) {
  console.error(e.formattedMessage);
}
if ((result.errors ?? []).some((e) => e.severity === "error" || e.severity === "warning")) process.exit(1);

mkdirSync(out, { recursive: true });
const found = new Set();
for (const file of Object.values(result.contracts)) {
  for (const [name, c] of Object.entries(file)) {
    if (!wanted.includes(name)) continue;
    found.add(name);
    const storage = (c.storageLayout?.storage ?? []).map((s) => `${s.slot}+${s.offset} ${s.label}`);
    const artifact = {
      contract: name,
      compiler: solc.version(),
      abi: c.abi,
      storage,
      bin: c.evm.bytecode.object,
      deployedBin: c.evm.deployedBytecode.object,
    };
    writeFileSync(join(out, `${name}.json`), JSON.stringify(artifact, null, 1) + "\n");
  }
}
for (const n of wanted) {
  if (!found.has(n)) {
    console.error(`contract ${n} was not compiled`);
    process.exit(1);
  }
}
