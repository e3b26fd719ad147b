/** A plugin as somebody with Hono writes one: compressed answers, streams and events, and nothing that knows of us. */
import { Hono } from 'hono';
import { compress } from 'hono/compress';
import { etag } from 'hono/etag';
import { stream, streamSSE, streamText } from 'hono/streaming';

const app = new Hono();
const LINES = Array.from({ length: 200 }, (_, i) => `line ${i} of a long text\n`);

app.use('/compressed/*', compress());
app.get('/compressed/page', (c) => c.text(LINES.join('')));
app.get('/compressed/stream', (c) =>
  streamText(c, async (out) => {
    c.header('content-encoding', 'identity');
    for (const line of LINES) await out.write(line);
  }),
);
app.use('/tagged/*', etag());
app.get('/tagged/stream', (c) =>
  stream(c, async (out) => {
    for (const line of LINES) await out.write(new TextEncoder().encode(line));
  }),
);
app.get('/events', (c) =>
  streamSSE(c, async (out) => {
    for (let i = 0; i < 3; i++) await out.writeSSE({ event: 'tick', id: String(i), data: `number ${i}` });
  }),
);
// Packed on its way in, counted as text, told to whoever listens.
app.post('/unpacked', async (c) => {
  const heard = new EventTarget();
  let lines = 0;
  heard.addEventListener('line', () => {
    lines++;
  });
  const text = c.req.raw.body!.pipeThrough(new DecompressionStream('gzip')).pipeThrough(new TextDecoderStream());
  for await (const part of text as unknown as AsyncIterable<string>)
    for (const _ of part.matchAll(/\n/g)) heard.dispatchEvent(new Event('line'));
  return c.json({ lines });
});

export default app;
