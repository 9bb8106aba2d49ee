/** One thing that was looked at. */
export interface Check {
  check: string; // stable name, for example "quote.signature"
  title: string;
  status: "passed" | "failed" | "skipped";
  want: string;
  got: string;
  hint: string; // why it did not pass, and where to look
}

/** The answer: the same JSON as `phala evidence check` prints. */
export interface Report {
  verdict: "verified" | "rejected";
  /** Decided by the root of trust alone. "simulated" and "custom" have no hardware vendor behind them. */
  platform: "tdx" | "sev-snp" | "simulated" | "custom" | "unknown";
  tcb_status: string;
  advisories: string[];
  checks: Check[];
  claims: Record<string, unknown>; // empty when rejected
  summary: string;
  /** "none": cryptography and the vendor's rules only; which app, image or request this is was not judged. */
  policy: string;
  at: string; // RFC 3339
  notes: string[]; // what to know before resting on the verdict
}

export interface Options {
  /** The vendor's collateral: the contract's object, or a bundle; as an object or as JSON text. */
  collateral?: object | string;
  /** "strict", "strict:release", "strict:running", or a policy object. None: vendor rules only. */
  policy?: object | string;
  /** The only roots to admit: PEM, DER (bytes, or in hex), or the sha256 of a public key in hex. */
  roots?: (string | Uint8Array)[];
  /** Verify at this time (unix seconds). None: the evidence's own "at", else now. */
  at?: number | Date;
  /** The 64 bytes that the evidence must answer. */
  reportData?: string | Uint8Array;
}

export class VerifierError extends Error {
  code: string;
  reason?: string;
  fix?: string;
}

/** Loads the module ahead of time. */
export function load(): Promise<void>;

/**
 * Checks one piece of evidence: JSON with "quote" or "attestation" (text or object), a
 * certificate with RA-TLS extensions (PEM, DER), or an encoded attestation. Throws a
 * VerifierError for input that cannot be read; everything else is in the report.
 *
 * Pass JSON that others wrote as text, not as an object: JSON.parse keeps the last of two
 * members of one name, and the verifier refuses both.
 */
export function verify(evidence: string | object | Uint8Array | ArrayBuffer, options?: Options): Promise<Report>;
