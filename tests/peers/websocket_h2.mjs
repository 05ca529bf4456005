// WebSocket's opening over HTTP/2 (RFC 8441) with Node's own HTTP/2, at either end.
//
//   serve [plain]           an upstream over h2c that echoes; `plain` does not announce extended CONNECT
//   open ADDRESS CASES      a client; CASES is JSON: [{path, protocol?, fields?, send?, times?}]; one line of JSON per case
import http2 from 'node:http2';

const [mode, ...rest] = process.argv.slice(2);
if (mode === 'serve') serve(rest[0] !== 'plain');
else await open(rest[0], JSON.parse(rest[1]));

function serve(enableConnectProtocol) {
  const server = http2.createServer({ settings: { enableConnectProtocol } });
  server.on('stream', (stream, headers) => {
    console.log(JSON.stringify({
      method: headers[':method'], protocol: headers[':protocol'], path: headers[':path'],
      key: headers['sec-websocket-key'] ?? null, stamped: 'txn-token' in headers,
    }));
    stream.on('error', () => {});
    if (headers[':method'] !== 'CONNECT') {
      stream.respond({ ':status': 404 });
      return stream.end();
    }
    stream.respond({ ':status': 200, 'sec-websocket-protocol': 'chat' });
    stream.pipe(stream);
  });
  server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
  process.stdin.resume().on('end', () => process.exit(0));
}

async function open(address, cases) {
  const session = http2.connect(`http://${address}`);
  const settings = await new Promise((resolve) => session.once('remoteSettings', resolve));
  for (const { path, protocol = 'websocket', fields = {}, times = 1, send: once = '' } of cases) {
    const send = once.repeat(times);
    const stream = session.request({
      ':method': 'CONNECT', ':protocol': protocol, ':scheme': 'http', ':path': path,
      ':authority': 'shop.acme.example', 'sec-websocket-version': '13', ...fields,
    }, { endStream: false });
    const told = { enabled: settings.enableConnectProtocol };
    told.headers = await new Promise((resolve, reject) => stream.once('response', resolve).once('error', reject));
    told.status = told.headers[':status'];
    told.received = await new Promise((resolve, reject) => {
      let all = '';
      stream.setEncoding('latin1').on('data', (part) => {
        all += part;
        if (told.status === 200 && send && all.length >= send.length) stream.end();
      }).on('end', () => resolve(all)).on('error', reject);
      if (told.status === 200 && send) stream.write(send, 'latin1');
    });
    stream.close();
    console.log(JSON.stringify(told));
  }
  session.close();
}
