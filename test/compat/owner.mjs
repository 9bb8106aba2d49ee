// The owner of an app registers a compose hash, with viem alone:
// owner.mjs <a file of the clients> <rpc> <private key> <app> <hash>
import { createRequire } from 'node:module';

const [from, rpc, key, app, hash] = process.argv.slice(2);
const require = createRequire(from);
const { createPublicClient, createWalletClient, http, parseAbi } = require('viem');
const { privateKeyToAccount } = require('viem/accounts');
const { base } = require('viem/chains');

const transport = http(rpc);
const wallet = createWalletClient({ account: privateKeyToAccount(key), chain: base, transport });
const hex = (s) => (s.startsWith('0x') ? s : `0x${s}`);
const tx = await wallet.writeContract({ address: hex(app), abi: parseAbi(['function addComposeHash(bytes32)']), functionName: 'addComposeHash', args: [hex(hash)] });
const receipt = await createPublicClient({ chain: base, transport }).waitForTransactionReceipt({ hash: tx });
console.log(JSON.stringify({ transaction_hash: tx, status: receipt.status }));
process.exitCode = receipt.status === 'success' ? 0 : 1;
