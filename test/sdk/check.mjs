// Calls every public function of the unmodified npm SDK against an agent's sockets
// and prints a verdict per function: true, or what was wrong. What the SDK exports and
// this file does not call is reported as missing.
import { createRequire } from 'node:module';
const [dir, modules, given] = process.argv.slice(2);
const require = createRequire(modules + '/');
const name = '@phala/dstack-sdk';
const sdk = require(name);
const parts = { '': sdk, viem: require(name + '/viem'), solana: require(name + '/solana'), 'encrypt-env-vars': require(name + '/encrypt-env-vars'), 'get-compose-hash': require(name + '/get-compose-hash'), 'verify-env-encrypt-public-key': require(name + '/verify-env-encrypt-public-key') };
const input = JSON.parse(given);
const hex = (b) => Buffer.from(b).toString('hex');
// The SDK does not look at HTTP statuses: of a refusal it makes an exception of its own or
// an answer without content. Texts of refusals are the wire test's (wire_test.go).
const verdicts = {};
const facts = {};
const same = (got, want) => (JSON.stringify(got) === JSON.stringify(want) ? true : `got ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
const all = (...v) => v.find((x) => x !== true) ?? true;
const is = (what, cond) => (cond ? true : 'not so: ' + what);
const fails = async (f, text) => { try { await f(); return 'did not fail'; } catch (e) { return String(e.message || e).includes(text) ? true : String(e.message || e); } };
const check = async (fn, f) => { try { verdicts[fn] = await f(); } catch (e) { verdicts[fn] = 'failed: ' + String(e.stack || e); } };

const c = new sdk.DstackClient(dir + '/dstack.sock');
const t = new sdk.TappdClient(dir + '/tappd.sock');
const gone = new sdk.DstackClient(dir + '/dstack.sock');
gone.endpoint = dir + '/nobody.sock';

await check('DstackClient.info', async () => {
  const i = await c.info();
  facts.info = { app_id: i.app_id, instance_id: i.instance_id, compose_hash: i.compose_hash, device_id: i.device_id, os_image_hash: i.os_image_hash, mrtd: i.tcb_info.mrtd, rtmr3: i.tcb_info.rtmr3, events: i.tcb_info.event_log.length };
  return all(is('app_cert', i.app_cert.includes('BEGIN CERTIFICATE')), is('app_name', i.app_name !== ''), is('key_provider_info', i.key_provider_info !== ''), is('app_compose', i.tcb_info.app_compose !== ''),
    is('strings', typeof i.cloud_vendor === 'string' && typeof i.cloud_product === 'string'), same(i.tcb_info.compose_hash, i.compose_hash), same(i.tcb_info.mr_aggregated, i.mr_aggregated));
});
await check('DstackClient.version', async () => { const v = await c.version(); return all(is('version', /^\d+\.\d+\.\d+$/.test(v.version)), is('rev', v.rev !== '')); });
await check('DstackClient.isReachable', async () => all(same(await c.isReachable(), true), same(await gone.isReachable(), false)));
await check('DstackClient.getKey', async () => {
  const a = await c.getKey('/', 'test'), b = await c.getKey('/', 'other'), d = await c.getKey('/x', 'test'), e = await c.getKey('/', 'test', 'ed25519'), k = await c.getKey('/', 'test', 'k256');
  facts.key = { key: hex(a.key), chain: a.signature_chain.map(hex) };
  facts.ed25519 = { key: hex(e.key), chain: e.signature_chain.map(hex) };
  return all(same(hex(a.key), hex(b.key)), same(hex(a.key), hex(k.key)), same(hex(a.key), hex(e.key)), is('another path, another key', hex(a.key) !== hex(d.key)), is('purpose is signed', hex(a.signature_chain[0]) !== hex(b.signature_chain[0])),
    await fails(() => c.getKey('/', 'x', 'rsa'), ''), await fails(() => c.getKey('/', 'x', 'secp256k1_prehashed'), ''));
});
await check('DstackClient.getTlsKey', async () => {
  const k = await c.getTlsKey({ subject: 'x.test', altNames: ['localhost', '127.0.0.1'], usageServerAuth: true, usageRaTls: true });
  const k2 = await c.getTlsKey({ subject: 'x.test' });
  const dated = await c.getTlsKey({ subject: 'y.test', notBefore: 1700000000, notAfter: 1900000000, withAppInfo: true, usageClientAuth: true });
  facts.tls = { chain: k.certificate_chain, key: k.key, dated: dated.certificate_chain[0], plain: k2.certificate_chain[0] };
  return all(same(k.asUint8Array(32).length, 32), is('pkcs8', k.key.startsWith('-----BEGIN PRIVATE KEY-----')), is('fresh', k.key !== k2.key),
    is('a refusal gives no key', (await c.getTlsKey({ subject: 'x', notBefore: 2, notAfter: 1 })).key === undefined));
});
await check('DstackClient.getQuote', async () => {
  const q = await c.getQuote('test');
  facts.quote = q.quote;
  facts.replay = q.replayRtmrs();
  const bytes = await c.getQuote(Buffer.alloc(64, 7));
  return all(is('report data', Buffer.from(bytes.quote.replace(/^0x/, ''), 'hex').subarray(568, 632).equals(Buffer.alloc(64, 7))), is('events', Array.isArray(JSON.parse(q.event_log))),
    await fails(() => c.getQuote('x'.repeat(65)), ''));
});
await check('DstackClient.attest', async () => { const a = await c.attest('test'); facts.attestation = a.attestation; return all(is('bytes', a.attestation.length > 1000), await fails(() => c.attest('x'.repeat(65)), '')); });
await check('DstackClient.sign', async () => {
  facts.sign = {};
  for (const a of ['ed25519', 'secp256k1', 'secp256k1_prehashed']) {
    const s = await c.sign(a, a === 'secp256k1_prehashed' ? Buffer.alloc(32, 7) : Buffer.from('hello'));
    facts.sign[a] = { signature: hex(s.signature), chain: s.signature_chain.map(hex), key: hex(s.public_key) };
  }
  return all(await fails(() => c.sign('secp256k1_prehashed', Buffer.from('short')), '32-byte digest'), await fails(() => c.sign('rsa', Buffer.from('x')), ''));
});
await check('DstackClient.verify', async () => {
  const out = [];
  for (const a of ['ed25519', 'secp256k1', 'secp256k1_prehashed']) {
    const data = a === 'secp256k1_prehashed' ? Buffer.alloc(32, 7) : Buffer.from('hello'), s = await c.sign(a, data);
    out.push(same((await c.verify(a, data, s.signature, s.public_key)).valid, true), same((await c.verify(a, Buffer.alloc(32, 9), s.signature, s.public_key)).valid, false),
      same((await c.verify(a, data, Buffer.alloc(3), s.public_key)).valid, undefined), same((await c.verify(a, data, s.signature, Buffer.alloc(3))).valid, undefined));
  }
  return all(...out);
});
// EmitEvent is gone from the reference (dstack-core C.2 does not list it). The agent refuses
// (the wire test); this SDK does not look at the status, so the register must not have moved.
await check('DstackClient.emitEvent', async () => { await c.emitEvent('x', 'y').catch(() => {}); return same((await c.info()).tcb_info.rtmr3, facts.info.rtmr3); });
await check('DstackClient.deriveKey', async () => fails(() => c.deriveKey('/', 'x'), 'deprecated'));
await check('DstackClient.tdxQuote', async () => { const q = await c.tdxQuote('test', 'raw').catch((e) => String(e)); return is('quote or a clear refusal', typeof q === 'string' ? q.length > 10 : q.quote.length > 1000); });
await check('TappdClient.isReachable', async () => same(await t.isReachable(), true));
await check('TappdClient.deriveKey', async () => {
  const a = await t.deriveKey('/', 'x.test', ['localhost']), b = await t.deriveKey('/', 'y.test'), d = await t.deriveKey('/other', 'x.test');
  facts.derived = { key: a.key, chain: a.certificate_chain };
  return all(same(a.asUint8Array(32).length, 32), same(a.key, b.key), is('another path, another key', a.key !== d.key));
});
await check('TappdClient.tdxQuote', async () => {
  facts.hashes = {};
  for (const h of ['sha256', 'sha384', 'sha512', 'sha3-256', 'sha3-384', 'sha3-512', 'keccak256', 'keccak384', 'keccak512', undefined]) {
    facts.hashes[h ?? 'default'] = Buffer.from((await t.tdxQuote('test content', h)).quote.replace(/^0x/, ''), 'hex').subarray(568, 632).toString('hex');
  }
  const raw = await t.tdxQuote('test', 'raw');
  facts.hashes.raw = Buffer.from(raw.quote.replace(/^0x/, ''), 'hex').subarray(568, 632).toString('hex');
  return fails(() => t.tdxQuote('x'.repeat(65), 'raw'), '');
});
await check('to_hex', async () => all(same(sdk.to_hex('ab'), '6162'), same(sdk.to_hex(Buffer.from([1, 2])), '0102')));
await check('getComposeHash', async () => all(same(sdk.getComposeHash(input.compose, false), input.composeHash), same(parts['get-compose-hash'].getComposeHash(input.compose), input.composeHash)));
await check('encryptEnvVars', async () => { facts.env = await parts['encrypt-env-vars'].encryptEnvVars([{ key: 'A', value: 'vä"lue\n' }, { key: 'B', value: '' }], input.envKey); return true; });
const b = (h) => Uint8Array.from(Buffer.from(h, 'hex'));
await check('verifyEnvEncryptPublicKey', async () => {
  const f = sdk.verifyEnvEncryptPublicKey, now = BigInt(input.timestamp);
  return all(same(f(b(input.envKey), b(input.envSigV1), input.app, now), '0x' + input.signer), same(f(b(input.envKey), b(input.envSigV1), input.app, now - 1000n), null), is('another app', f(b(input.envKey), b(input.envSigV1), '00'.repeat(20), now) !== '0x' + input.signer));
});
await check('verifyEnvEncryptPublicKeyLegacy', async () => {
  const f = parts['verify-env-encrypt-public-key'].verifyEnvEncryptPublicKeyLegacy;
  return all(same(f(b(input.envKey), b(input.envSig), input.app), '0x' + input.signer), same(f(b(input.envKey), new Uint8Array(3), input.app), null));
});
await check('toViemAccount', async () => all(is('address', /^0x[0-9a-fA-F]{40}$/.test(parts.viem.toViemAccount(await c.getKey('/', 'v')).address))));
await check('toViemAccountSecure', async () => {
  const k = await c.getKey('/', 'v'), a = parts.viem.toViemAccountSecure(k), again = parts.viem.toViemAccountSecure(await c.getKey('/', 'w')), other = parts.viem.toViemAccountSecure(await c.getKey('/2', 'v'));
  const { verifyMessage } = require('viem');
  return all(same(a.address, again.address), is('by path', a.address !== other.address), is('signs', await verifyMessage({ address: a.address, message: 'm', signature: await a.signMessage({ message: 'm' }) })));
});
await check('toKeypair', async () => is('key', parts.solana.toKeypair(await c.getKey('/', 's')).publicKey.toBase58().length > 30));
await check('toKeypairSecure', async () => {
  const k = await c.getKey('/', 's'), p = parts.solana.toKeypairSecure(k);
  const { Keypair } = require('@solana/web3.js');
  return same(p.publicKey.toBase58(), Keypair.fromSeed(k.key).publicKey.toBase58());
});
// The surface itself: what exists and was not called above.
for (const p of Object.values(parts)) {
  for (const [n, v] of Object.entries(p)) {
    if (typeof v !== 'function') continue;
    const methods = Object.getOwnPropertyNames(v.prototype ?? {}).filter((m) => m !== 'constructor' && !m.startsWith('ensure') && typeof v.prototype[m] === 'function');
    for (const want of methods.length ? methods.map((m) => n + '.' + m) : [n]) if (!(want in verdicts)) verdicts[want] = 'the SDK has it and this test does not call it';
  }
}
console.log(JSON.stringify({ verdicts, facts }));
