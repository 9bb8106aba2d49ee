// Calls every action of the public SDK against a cloud without a chain, in the order
// of one app's life. One JSON line per exported function: {name, ok, error}.
import assert from 'node:assert/strict';

const { PREFIX: baseURL, KEY: apiKey, SDK, KMS_KEY } = process.env;
const sdk = await import(SDK);
const client = sdk.createClient({ apiKey, baseURL });

const old = sdk.createClient({ apiKey, baseURL, version: '2025-10-28' });

async function run(name, fn) {
  try {
    await fn();
    console.log(JSON.stringify({ name, ok: true }));
  } catch (e) {
    console.log(JSON.stringify({ name, ok: false, error: String(e?.message ?? e).slice(0, 600) + (e?.status ? ` (${e.status})` : '') }));
  }
}
const safeName = (n) => 'safe' + n[0].toUpperCase() + n.slice(1);

// read: the plain, the safe and the client's own form all give the same good answer.
async function read(name, args, check) {
  const forms = [[name, () => sdk[name](client, ...args)], [safeName(name), () => sdk[safeName(name)](client, ...args)]];
  if (client[name]) forms.push([name, () => client[name](...args)], [safeName(name), () => client[safeName(name)](...args)]);
  for (const [form, call] of forms) await run(form, async () => {
    let got = await call();
    if (form.startsWith('safe')) { assert.ok(got.success, got.error?.message); got = got.data; }
    await check(got);
  });
}

// change: the plain form does it, the safe one is refused for a CVM that is not there.
async function change(name, args, check, wrong) {
  await run(name, async () => { await check(await sdk[name](client, args)); await rest(); });
  if (wrong) await run(safeName(name), async () => {
    const r = await sdk[safeName(name)](client, { ...args, ...wrong });
    assert.equal(r.success, false, 'not refused');
    assert.equal(r.error.status, 404, r.error.message);
  });
}

const pause = () => new Promise((r) => setTimeout(r, 50));
let uuid, app, provisioned;
async function rest(id = uuid) {
  for (;;) {
    const s = (await sdk.getCvmStatusBatch(client, { vmUuids: [id] }))[id];
    if (!s.in_progress) return s;
    await pause();
  }
}
const yaml = (tag) => `services:\n  web:\n    image: nginx:${tag}\n    ports:\n      - "8080:80"\n`;
const nobody = { id: 'not-a-cvm' };
const ok = () => {};

await run('createClient', async () => assert.ok(client.config.baseURL === baseURL));
await read('getCurrentUser', [], (u) => assert.equal(u.user.username, 'admin'));
await run('getCurrentUser', async () => assert.equal((await sdk.getCurrentUser(old)).username, 'admin'));
let slug = (await sdk.getCurrentUser(client)).workspace.slug;
await read('getAvailableNodes', [], (n) => assert.equal(n.nodes[0].name, 'local'));
await read('listAllInstanceTypeFamilies', [], (r) => assert.equal(r.result[0].name, 'cpu'));
await read('listFamilyInstanceTypes', [{ family: 'cpu' }], (r) => assert.equal(r.total, 4));
await read('listWorkspaces', [{}], (r) => assert.equal(r.data[0].slug, slug));
await read('getWorkspace', [slug], (w) => assert.equal(w.slug, slug));
await read('getWorkspaceNodes', [{ teamSlug: slug }], (r) => assert.equal(r.items[0].name, 'local'));
await read('getWorkspaceQuotas', [{ teamSlug: slug }], (q) => assert.ok(q.quotas.vcpu));
await read('getOsImages', [{}], (r) => assert.equal(r.total, 2));
await read('getKmsList', [{}], (r) => assert.equal(r.items[0].slug, 'kms-test'));
await read('getKmsInfo', [{ kms_id: 'kms-test' }], (k) => assert.equal(k.slug, 'kms-test'));
await read('nextAppIds', [{ counts: 2 }], (r) => assert.equal(r.app_ids.length, 2));

// The app's life.
const request = {
  name: 'sdk-app', instance_type: 'tdx.small', env_keys: ['GREETING'],
  compose_file: { name: '', docker_compose_file: yaml('1.27'), allowed_envs: ['GREETING'], public_logs: true, public_sysinfo: true },
};
await read('provisionCvm', [request], (p) => { assert.match(p.compose_hash, /^[0-9a-f]{64}$/); provisioned = p; });
app = provisioned.app_id;
await read('getAppEnvEncryptPubKey', [{ kms: 'phala', app_id: app }], (k) => assert.equal(k.public_key, provisioned.app_env_encrypt_pubkey));
await run('verifyEnvEncryptPublicKey', async () => {
  const bytes = (h) => Uint8Array.from(Buffer.from(h.replace(/^0x/, ''), 'hex'));
  const k = await sdk.getAppEnvEncryptPubKey(client, { kms: 'phala', app_id: app });
  assert.equal(sdk.verifyEnvEncryptPublicKey(bytes(k.public_key), bytes(k.signature), app), KMS_KEY);
});
let sealed;
await run('encryptEnvVars', async () => { sealed = await sdk.encryptEnvVars([{ key: 'GREETING', value: 'hello' }], provisioned.app_env_encrypt_pubkey); });
const commit = { app_id: app, compose_hash: provisioned.compose_hash, encrypted_env: sealed, env_keys: ['GREETING'] };
await run('commitCvmProvision', async () => { const vm = await sdk.commitCvmProvision(client, commit); uuid = vm.vm_uuid; assert.equal(vm.app_id, app); });
await run('safeCommitCvmProvision', async () => {
  const r = await sdk.safeCommitCvmProvision(client, { ...commit, compose_hash: '00'.repeat(32) });
  assert.equal(r.success, false, 'an unknown hash was committed');
});
await run('watchCvmState', async () => assert.equal((await sdk.watchCvmState(client, { uuid, target: 'running', interval: 5, timeout: 30 })).status, 'running'));
await rest();
const id = { uuid };
await read('getCvmInfo', [id], (c) => assert.equal(c.vm_uuid, uuid));
await run('getCvmInfo', async () => assert.equal((await sdk.getCvmInfo(old, id)).vm_uuid, uuid));
await read('getCvmList', [{}], (l) => assert.equal(l.items[0].vm_uuid, uuid));
await run('getCvmList', async () => assert.equal((await sdk.getCvmList(old, {})).items[0].hosted.app_id, app));
await read('getCvmState', [id], (s) => assert.equal(s.status, 'running'));
await read('getCvmStatusBatch', [{ vmUuids: [uuid] }], (s) => assert.equal(s[uuid].status, 'running'));
await read('getCvmStats', [id], (s) => assert.ok(s.is_online && s.sysinfo));
await read('getCvmNetwork', [id], (s) => assert.ok(s.public_urls[0].app.includes(app)));
await read('getCvmContainersStats', [id], (s) => assert.equal(s.containers[0].names[0], '/web'));
await read('getCvmAttestation', [id], (s) => assert.ok(s.tcb_info.mrtd));
await read('getCvmDockerCompose', [id], (s) => assert.equal(s.trim(), yaml('1.27').trim()));
await read('getCvmPreLaunchScript', [id], (s) => assert.equal(typeof s, 'string'));
await read('getCvmUserConfig', [id], (s) => assert.equal(typeof s, 'object'));
await read('getCvmComposeFile', [id], (c) => assert.equal(c.docker_compose_file.trim(), yaml('1.27').trim()));
await read('getAvailableOsImages', [id], (l) => assert.ok(l.some((v) => v.prod?.is_current)));
await read('getAppList', [{}], (l) => assert.equal(l.dstack_apps[0].app_id, app));
await read('getAppInfo', [{ appId: app }], (a) => assert.equal(a.app_id, app));
await read('getAppCvms', [{ appId: app }], (l) => assert.equal(l[0].vm_uuid, uuid));
await read('getAppFilterOptions', [], (o) => assert.equal(typeof o, 'object'));
await read('getAppDeviceAllowlist', [{ appId: app }], (o) => assert.equal(typeof o, 'object'));
let revision;
await read('getAppRevisions', [{ appId: app }], (r) => { revision = r.revisions[0].revision_id; });
await read('getAppRevisionDetail', [{ appId: app, revisionId: String(revision) }], (r) => assert.equal(r.app_id, app));
await read('getAppAttestation', [{ appId: app }], (r) => assert.equal(r.app_id, app));
await read('refreshCvmInstanceId', [{ ...id, dry_run: true }], (r) => assert.notEqual(r.status, 'error'));
await read('refreshCvmInstanceIds', [{ dry_run: true }], (r) => assert.equal(r.errors, 0));

// Changes.
const hello = async (text) => sdk.encryptEnvVars([{ key: 'GREETING', value: text }], provisioned.app_env_encrypt_pubkey);
await change('updateCvmEnvs', { ...id, encrypted_env: await hello('two'), env_keys: ['GREETING'] }, (r) => assert.equal(r.status, 'in_progress'), { uuid: undefined, ...nobody });
await change('updateDockerCompose', { ...id, docker_compose_file: yaml('1.28') }, (r) => assert.equal(r.status, 'in_progress'), { uuid: undefined, ...nobody });
await change('updatePreLaunchScript', { ...id, pre_launch_script: 'echo hello\n' }, (r) => assert.equal(r.status, 'in_progress'), { uuid: undefined, ...nobody });
await run('getCvmPreLaunchScript', async () => assert.equal((await sdk.getCvmPreLaunchScript(client, id)).trim(), 'echo hello'));
await change('patchCvm', { ...id, docker_compose_file: yaml('1.29') }, (r) => assert.equal(r.requiresOnChainHash, false), { uuid: undefined, ...nobody });
let next;
const file = await sdk.getCvmComposeFile(client, id);
await run('provisionCvmComposeFileUpdate', async () => {
  next = await sdk.provisionCvmComposeFileUpdate(client, { ...id, app_compose: { ...file, docker_compose_file: yaml('1.30') } });
  assert.notEqual(next.compose_hash, provisioned.compose_hash);
});
await run('safeProvisionCvmComposeFileUpdate', async () => assert.equal((await sdk.safeProvisionCvmComposeFileUpdate(client, { ...nobody, app_compose: file })).error?.status, 404));
await change('commitCvmComposeFileUpdate', { ...id, compose_hash: next?.compose_hash }, ok, { uuid: undefined, ...nobody });
await run('commitCvmComposeFileUpdate', async () => assert.equal((await sdk.getCvmDockerCompose(client, id)).trim(), yaml('1.30').trim()));
await change('updateCvmVisibility', { ...id, public_logs: false, public_sysinfo: true }, (c) => assert.equal(c.public_logs, false), { uuid: undefined, ...nobody });
await change('updateCvmResources', { ...id, memory: 4096, allow_restart: true }, ok, { uuid: undefined, ...nobody });
await change('updateOsImage', { ...id, os_image_name: 'dstack-dev-0.5.5' }, ok, { uuid: undefined, ...nobody });
await change('stopCvm', id, ok, { uuid: undefined, ...nobody });
await run('stopCvm', async () => assert.equal((await sdk.getCvmState(client, id)).status, 'stopped'));
await change('startCvm', id, ok, { uuid: undefined, ...nobody });
await change('restartCvm', { ...id, force: false }, ok, { uuid: undefined, ...nobody });
let replica;
await change('replicateCvm', id, (vm) => { replica = vm.vm_uuid; assert.equal(vm.app_id, app); }, { uuid: undefined, ...nobody });
if (replica) await rest(replica);
let instance;
await run('createAppInstance', async () => { const vm = await sdk.createAppInstance(client, { appId: app, compose_hash: next.compose_hash }); instance = vm.vm_uuid; await rest(instance); });
await run('safeCreateAppInstance', async () => assert.equal((await sdk.safeCreateAppInstance(client, { appId: '11'.repeat(20) })).error?.status, 404));
await change('shutdownCvm', id, ok, { uuid: undefined, ...nobody });
await run('deleteCvm', () => sdk.deleteCvm(client, id));
await run('safeDeleteCvm', async () => assert.equal((await sdk.safeDeleteCvm(client, nobody)).error?.status, 404));
for (const other of [replica, instance]) if (other) await run('deleteCvm', () => sdk.deleteCvm(client, { uuid: other }));

// SSH keys. The cloud has no way to GitHub here: the import is refused, as an error
// of the cloud's own form.
let key;
await run('createSshKey', async () => { key = await sdk.createSshKey(client, { name: 'mine', public_key: process.env.SSH_KEY }); assert.match(key.fingerprint, /^SHA256:/); });
await run('safeCreateSshKey', async () => assert.equal((await sdk.safeCreateSshKey(client, { name: 'bad', public_key: 'no key' })).success, false));
await read('listSshKeys', [], (l) => assert.equal(l[0].id, key.id));
await run('deleteSshKey', () => sdk.deleteSshKey(client, { keyId: key.id }));
await run('safeDeleteSshKey', async () => assert.equal((await sdk.safeDeleteSshKey(client, { keyId: key.id })).error?.status, 404));
await read('importGithubProfileSshKeys', [{ github_username: 'somebody' }], ok);
await read('syncGithubSshKeys', [], ok);

// Errors are the SDK's own classes.
await run('ResourceError', async () => { await assert.rejects(sdk.getCvmInfo(client, nobody), (e) => e instanceof sdk.ResourceError && e.errorCode === 'ERR-03-001'); });
const stranger = sdk.createClient({ apiKey: 'phak_nobody', baseURL });
await run('AuthError', async () => { await assert.rejects(sdk.getCvmList(stranger, {}), (e) => e.status === 401); });
await run('ValidationError', async () => { await assert.rejects(client.post('/cvms/provision', { ...request, name: '1' }), (e) => e instanceof sdk.ValidationError && e.status === 422); });
await run('getComposeHash', async () => assert.match(sdk.getComposeHash(file), /^[0-9a-f]{64}$/));
