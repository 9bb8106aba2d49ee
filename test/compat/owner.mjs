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
const address = app.startsWith('0x') ? app : `0x${app}`;
const tx = await wallet.writeContract({ address, abi: parseAbi(['function addComposeHash(bytes32)']), functionName: 'addComposeHash', args: [hash] });
const receipt = await createPublicClient({ chain: base, transport }).waitForTransactionReceipt({ hash: tx });
console.log(JSON.stringify({ transaction_hash: tx, status: receipt.status }));
process.exitCode = receipt.status === 'success' ? 0 : 1;
