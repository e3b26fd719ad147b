/** A Fastify server whose one answer stands in its source: changing it means a restart. `node fastify-server.ts PORT WORD` */
import Fastify from 'fastify';

const [port, word] = process.argv.slice(2);
const app = Fastify();
app.get('/api/plugins/hello/', async () => ({ hello: word }));
await app.listen({ host: '127.0.0.1', port: Number(port) });
process.send?.('ready');
process.on('disconnect', () => process.exit(0));
