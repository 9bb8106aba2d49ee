// The public SDK on a cloud whose apps live on a chain: every call that reads or
// writes the contracts, and the two phases of an update. One JSON line per exported
// function, as in sdk.mjs.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const { PREFIX: baseURL, KEY: apiKey, SDK, RPC: rpcUrl, PRIVATE_KEY: privateKey } = process.env;
const sdk = await import(SDK);
const { parseEther, parseAbi } = createRequire(SDK)('viem');
const client = sdk.createClient({ apiKey, baseURL });
const safeName = (n) => 'safe' + n[0].toUpperCase() + n.slice(1);

async function run(name, fn) {
  try {
    await fn();
    console.log(JSON.stringify({ name, ok: true }));
  } catch (e) {
    console.log(JSON.stringify({ name, ok: false, error: String(e?.message ?? e).slice(0, 600) + (e?.status ? ` (${e.status})` : '') }));
  }
}
// both: the plain and the safe form give the same.
async function both(name, args, check) {
  await run(name, async () => check(await sdk[name](...args)));
  await run(safeName(name), async () => {
    const r = await sdk[safeName(name)](...args);
    assert.ok(r.success, r.error?.message);
    await check(r.data);
  });
}
// wrong: the safe form tells what is wrong.
const wrong = (name, args) => run(safeName(name), async () => assert.equal((await sdk[safeName(name)](...args)).success, false, 'not refused'));
const pause = () => new Promise((r) => setTimeout(r, 100));
async function rest(id) {
  while ((await sdk.getCvmStatusBatch(client, { vmUuids: [id] }))[id].in_progress) await pause();
}
const yaml = (tag) => `services:\n  web:\n    image: nginx:${tag}\n`;

const kms = (await sdk.getKmsList(client, { is_onchain: true })).items[0];
const chain = kms.chain;
await run('SUPPORTED_CHAINS', async () => assert.equal(chain, sdk.SUPPORTED_CHAINS[8453]));
await both('getKmsOnChainDetail', [client, { chain: 'base' }], (d) => assert.equal(d.contracts[0].contract_address.toLowerCase(), kms.kms_contract_address.toLowerCase()));

const clients = sdk.createClientsFromPrivateKey(chain, privateKey, rpcUrl);
const { publicClient, walletClient, address } = clients;
await run('createClientsFromPrivateKey', async () => assert.equal(clients.chainId, 8453));
await run('createNetworkClients', async () => assert.deepEqual(sdk.createNetworkClients(publicClient, walletClient, address, 8453), clients));
await run('extractNetworkClients', async () => assert.equal((await sdk.extractNetworkClients(publicClient, walletClient)).address, address));
await run('checkNetworkStatus', async () => assert.ok((await sdk.checkNetworkStatus(clients, 8453)).isCorrectNetwork));
await run('checkBalance', async () => {
  assert.ok((await sdk.checkBalance(publicClient, address, parseEther('0.001'))).sufficient);
  assert.ok(!(await sdk.checkBalance(publicClient, address, parseEther('1000000'))).sufficient);
});
await run('validateNetworkPrerequisites', async () => {
  const r = await sdk.validateNetworkPrerequisites(clients, { targetChainId: 8453, requiredAddress: address });
  assert.ok(r.networkValid && r.balanceValid && r.addressValid);
});

// Create: provision, the app's contract by its owner, commit.
const p = await sdk.provisionCvm(client, {
  name: 'chain-sdk', instance_type: 'tdx.small', kms: 'BASE', compose_file: { name: '', docker_compose_file: yaml('1.27') },
});
const create = { chain, rpcUrl, privateKey, kmsContractAddress: kms.kms_contract_address, deviceId: p.device_id, composeHash: p.compose_hash };
let app;
await run('deployAppAuth', async () => {
  assert.ok(!p.app_id, 'an app id before the contract');
  app = (await sdk.deployAppAuth(create)).appAuthAddress;
  assert.match(app, /^0x[0-9a-fA-F]{40}$/);
});
await wrong('deployAppAuth', [{ ...create, minBalance: '1000000' }]);
const key = await sdk.getAppEnvEncryptPubKey(client, { kms: kms.slug, app_id: app });
const vm = await sdk.commitCvmProvision(client, {
  app_id: app, compose_hash: p.compose_hash, kms_id: kms.slug, contract_address: app, deployer_address: address,
  encrypted_env: await sdk.encryptEnvVars([{ key: 'A', value: '1' }], key.public_key), env_keys: ['A'],
});
const id = { uuid: vm.vm_uuid };
await rest(vm.vm_uuid);

// What the contract says.
const at = { chain, rpcUrl, appAddress: app };
const device = p.device_id;
await both('checkDeviceAllowed', [{ ...at, deviceId: device }], (v) => assert.equal(v, true));
await both('checkComposeHashAllowed', [{ ...at, composeHash: p.compose_hash }], (v) => assert.equal(v, true));
await both('getAllowedDevices', [{ ...at, deviceIds: [device, '22'.repeat(32)] }], (v) => assert.equal(v.devices.length, 1));
await both('checkOnChainPrerequisites', [{ ...at, deviceId: device, composeHash: '33'.repeat(32) }], (v) => assert.deepEqual(v, { allowAnyDevice: false, deviceAllowed: true, composeHashAllowed: false }));
await both('checkCvmIsAllowed', [client, { cvmId: vm.vm_uuid }], (v) => assert.ok(v.is_allowed));
await both('checkAppIsAllowed', [client, { appId: app.slice(2).toLowerCase(), compose_hash: p.compose_hash }], (v) => assert.ok(v.compose_hash_allowed));
await run('checkAppIsAllowed', async () => assert.ok(!(await sdk.checkAppIsAllowed(client, { appId: app.slice(2).toLowerCase(), compose_hash: '33'.repeat(32) })).is_allowed));
await both('checkAppCvmsIsAllowed', [client, { appId: app.slice(2).toLowerCase() }], (v) => assert.ok(JSON.stringify(v).includes('"is_allowed":true')));

// What its owner changes.
const other = '44'.repeat(32);
const owner = { chain, rpcUrl, privateKey, appAddress: app };
await run('addDevice', async () => { await sdk.addDevice({ ...owner, deviceId: other }); assert.ok(await sdk.checkDeviceAllowed({ ...at, deviceId: other })); });
await run('removeDevice', async () => { await sdk.removeDevice({ ...owner, deviceId: other }); assert.ok(!(await sdk.checkDeviceAllowed({ ...at, deviceId: other }))); });
await run('setAllowAnyDevice', async () => { await sdk.setAllowAnyDevice({ ...owner, allow: true }); assert.ok(await sdk.checkDeviceAllowed({ ...at, deviceId: other })); });
await run('safeSetAllowAnyDevice', async () => { const r = await sdk.safeSetAllowAnyDevice({ ...owner, allow: false }); assert.ok(r.success, r.error?.message); assert.ok(!(await sdk.checkDeviceAllowed({ ...at, deviceId: other }))); });
const thief = { ...owner, privateKey: '0x' + '55'.repeat(32) };
await wrong('addDevice', [{ ...thief, deviceId: other }]);
await wrong('removeDevice', [{ ...thief, deviceId: device }]);

// Update in two phases, both ways; the SDK's own transaction helpers in between.
const prepared = await sdk.patchCvm(client, { ...id, docker_compose_file: yaml('1.28') });
await run('patchCvm', async () => assert.ok(prepared.requiresOnChainHash && prepared.onchainStatus.is_allowed === false));
await run('safeConfirmCvmPatch', async () => assert.equal((await sdk.safeConfirmCvmPatch(client, { ...id, composeHash: prepared.composeHash, transactionHash: 'already-registered' })).error?.status, 468));
let tx;
await run('addComposeHash', async () => { tx = (await sdk.addComposeHash({ chain, rpcUrl, privateKey, appId: app, composeHash: prepared.composeHash })).transactionHash; });
await wrong('addComposeHash', [{ chain, rpcUrl, privateKey: thief.privateKey, appId: app, composeHash: prepared.composeHash }]);
await run('waitForTransactionReceipt', async () => assert.equal((await sdk.waitForTransactionReceipt(publicClient, tx)).status, 'success'));
await run('confirmCvmPatch', async () => assert.ok((await sdk.confirmCvmPatch(client, { ...id, composeHash: prepared.composeHash, transactionHash: tx })).correlationId));
await rest(vm.vm_uuid);
await run('confirmCvmPatch', async () => assert.equal((await sdk.getCvmDockerCompose(client, id)).trim(), yaml('1.28').trim()));

const again = await sdk.patchCvm(client, { ...id, docker_compose_file: yaml('1.29'), prepareOnly: true });
const abi = parseAbi(['function addComposeHash(bytes32)', 'function addDevice(bytes32)', 'function removeDevice(bytes32)']);
const write = (functionName, ...args) => ({ publicClient: pc, walletClient: wc }) => wc.writeContract({ address: app, abi, functionName, args });
await run('dstackAppAbi', async () => assert.ok(sdk.dstackAppAbi.some((f) => f.name === 'allowedComposeHashes')));
await run('estimateTransactionGas', async () => assert.ok(await sdk.estimateTransactionGas(clients, { to: address, value: 1n })));
await run('executeTransaction', async () => {
  const r = await sdk.executeTransaction(clients, write('addComposeHash', sdk.asHex(again.composeHash)), []);
  assert.ok(r.success);
  tx = r.hash;
});
await run('executeTransactionWithRetry', async () => assert.ok((await sdk.executeTransactionWithRetry(write('addDevice', '0x' + other), clients, [])).success));
await run('executeBatchTransactions', async () => {
  await sdk.executeBatchTransactions([{ operation: write('removeDevice', '0x' + other), args: [] }], clients, { mode: 'sequential', failFast: true });
  assert.ok(!(await sdk.checkDeviceAllowed({ ...at, deviceId: other })), 'the transaction was not made');
});
// Whoever has the token commits: no API key.
const nobody = sdk.createClient({ baseURL, apiKey: 'none' });
await run('safeCommitCvmUpdate', async () => assert.equal((await sdk.safeCommitCvmUpdate(nobody, { ...id, token: '0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d001', composeHash: again.composeHash, transactionHash: tx })).error?.status, 466));
await run('commitCvmUpdate', async () => assert.ok((await sdk.commitCvmUpdate(nobody, { ...id, token: again.commitToken, composeHash: again.composeHash, transactionHash: tx })).correlationId));
await rest(vm.vm_uuid);
await run('commitCvmUpdate', async () => assert.equal((await sdk.getCvmDockerCompose(client, id)).trim(), yaml('1.29').trim()));
