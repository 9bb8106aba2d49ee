// Asks dstack.sock, through the unmodified npm SDK, for what a wallet app asks.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
const { DstackClient, TappdClient } = createRequire('/app/')('@phala/dstack-sdk');

const hex = (b) => Buffer.from(b).toString('hex');

async function answer() {
  const client = new DstackClient();
  const info = await client.info();
  const key = await client.getKey('wallet/eth', 'ethereum');
  const quote = await client.getQuote('a wallet asks');
  const tls = await client.getTlsKey({ subject: 'wallet.test', altNames: ['wallet.test'], usageServerAuth: true });
  const tappd = await new TappdClient().tdxQuote('legacy', 'sha256');
  return {
    app_id: info.app_id,
    compose_hash: info.compose_hash ?? info.tcb_info.compose_hash,
    key: hex(key.key).length / 2,
    chain: key.signature_chain.map((s) => hex(s).length / 2),
    quote: quote.quote.length,
    events: JSON.parse(quote.event_log).length,
    tls: tls.certificate_chain.length,
    tappd: tappd.quote.length,
  };
}

process.on('SIGTERM', () => process.exit(0)); // as process 1 it would be waited for, then killed

createServer(async (_req, res) => {
  try {
    const body = JSON.stringify(await answer());
    res.writeHead(200, { 'Content-Type': 'application/json' }).end(body);
  } catch (e) {
    res.writeHead(500, { 'Content-Type': 'text/plain' }).end(String(e?.stack ?? e));
  }
}).listen(3000);
