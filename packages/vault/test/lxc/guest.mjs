// A little guest for the driver's own tests: it evaluates what the control channel asks for, and echoes on its socket.
import net from 'node:net';

const control = new net.Socket({ fd: 4, readable: true, writable: true });
let held = Buffer.alloc(0);
const say = (value) => {
  const text = Buffer.from(JSON.stringify(value) ?? 'null');
  const head = Buffer.alloc(5);
  head.writeUInt32BE(text.length + 1);
  head[4] = 1;
  control.write(Buffer.concat([head, text]));
};
control.on('data', async (bytes) => {
  held = Buffer.concat([held, bytes]);
  while (held.length >= 5 && held.length >= 4 + held.readUInt32BE()) {
    const end = 4 + held.readUInt32BE();
    const text = held.subarray(5, end).toString();
    held = held.subarray(end);
    try {
      const run = new Function('fs', 'get', `return (async () => (${text}))()`);
      say({ value: await run(process.getBuiltinModule('node:fs'), (name) => process.getBuiltinModule(name)) });
    } catch (error) {
      say({ error: String(error?.code ?? error) });
    }
  }
});
control.on('error', () => {});
control.on('close', () => process.exit(0));
globalThis.server = net
  .createServer((socket) => {
    socket.on('error', () => {});
    if (globalThis.take) globalThis.take(socket);
    else socket.pipe(socket);
  })
  .listen({ fd: 3 }, () => say({ value: 'ready' }));
