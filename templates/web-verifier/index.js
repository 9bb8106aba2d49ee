// The verifier is Go compiled to WebAssembly (wasm/main.go); this file starts it
// once and gives it bytes. Nothing is fetched but the module itself.
import "./dist/wasm_exec.js";

const handover = "__phalaWebVerifier";
let started;

/** An input that cannot be read. `code`, `reason` and `fix` are the coded error's. */
export class VerifierError extends Error {
  constructor({ code, message, reason, fix }) {
    super(message);
    this.name = "VerifierError";
    Object.assign(this, { code, reason, fix });
  }
}

async function module() {
  const url = new URL("./dist/verifier.wasm", import.meta.url);
  if (url.protocol === "file:") {
    const { readFile } = await import("node:fs/promises");
    return readFile(url);
  }
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`verifier.wasm: ${answer.status}`);
  return answer.arrayBuffer();
}

async function start() {
  const go = new globalThis.Go();
  const { instance } = await WebAssembly.instantiate(await module(), go.importObject);
  return new Promise((resolve, reject) => {
    globalThis[handover] = (check) => {
      delete globalThis[handover];
      resolve(check);
    };
    go.run(instance).then(() => reject(new Error("the verifier ended")), reject);
  });
}

/** Loads the module; verify does so by itself. A failed load is tried again. */
export function load() {
  started ??= start().catch((e) => {
    started = undefined;
    throw e;
  });
  return started.then(() => undefined);
}

function bytes(evidence) {
  if (evidence instanceof Uint8Array) return evidence;
  if (evidence instanceof ArrayBuffer) return new Uint8Array(evidence);
  return new TextEncoder().encode(typeof evidence === "string" ? evidence : JSON.stringify(evidence));
}

const hex = (b) => Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
const parsed = (v) => (typeof v === "string" ? JSON.parse(v) : v);

/** Checks evidence; see index.d.ts. */
export async function verify(evidence, { collateral, policy, roots, at, reportData } = {}) {
  await load();
  const check = await started;
  const options = {
    collateral: collateral === undefined ? undefined : parsed(collateral),
    policy,
    roots: roots?.map((r) => (r instanceof Uint8Array ? hex(r) : r)),
    at: at instanceof Date ? Math.floor(at.getTime() / 1000) : at,
    report_data: reportData instanceof Uint8Array ? hex(reportData) : reportData,
  };
  const answer = JSON.parse(check(bytes(evidence), JSON.stringify(options), Date.now()));
  if (answer.error) throw new VerifierError(answer.error);
  return answer;
}
