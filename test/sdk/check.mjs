// Asks an agent's sockets, through the unmodified npm SDK, and prints what came back.
import { createRequire } from 'node:module';
const [dir, modules] = process.argv.slice(2);
const { DstackClient, TappdClient } = createRequire(modules + '/')('@phala/dstack-sdk');
const hex = (b) => Buffer.from(b).toString('hex');
const c = new DstackClient(dir + '/dstack.sock');
const t = new TappdClient(dir + '/tappd.sock');
const fails = async (f) => { try { await f(); return ''; } catch (e) { return String(e.message || e); } };
const out = {};
out.reachable = [await c.isReachable(), await t.isReachable()];
out.info = await c.info();
out.version = await c.version();
const k1 = await c.getKey('/', 'test'), k2 = await c.getKey('/', 'test');
out.key = [hex(k1.key), hex(k2.key), k1.signature_chain.map(hex)];
out.quote = await c.getQuote('test');
out.attest = hex((await c.attest('test')).attestation).slice(0, 2);
out.tooLong = await fails(() => c.getQuote('x'.repeat(65)));
const tls = await c.getTlsKey({ subject: 'x.test', altNames: ['localhost', '127.0.0.1'], usageServerAuth: true, usageRaTls: true });
out.tls = { key: tls.key.slice(0, 27), chain: tls.certificate_chain, bytes: tls.asUint8Array(32).length };
out.sign = {};
for (const a of ['ed25519', 'secp256k1', 'secp256k1_prehashed']) {
  const data = a === 'secp256k1_prehashed' ? Buffer.alloc(32, 7) : Buffer.from('hello');
  const s = await c.sign(a, data);
  const good = await c.verify(a, data, s.signature, s.public_key);
  const bad = await c.verify(a, Buffer.alloc(32, 9), s.signature, s.public_key);
  out.sign[a] = [good.valid, bad.valid, s.signature_chain.length, hex(s.signature) === hex(s.signature_chain[0])];
}
out.digest = await fails(() => c.sign('secp256k1_prehashed', Buffer.from('short')));
out.unsupported = await fails(() => c.getKey('/', 'x', 'rsa'));
out.derive = (await t.deriveKey('/', 'x.test')).asUint8Array(32).length;
out.hashes = {};
for (const h of ['sha256', 'sha384', 'sha512', 'sha3-256', 'sha3-384', 'sha3-512', 'keccak256', 'keccak384', 'keccak512']) {
  out.hashes[h] = await fails(() => t.tdxQuote('test content', h));
}
out.raw = (await t.tdxQuote('test', 'raw')).quote.length;
console.log(JSON.stringify(out));
