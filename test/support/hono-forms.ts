/** A plugin as somebody with Hono writes one: forms and uploads, and nothing that knows of us. */
import { Hono } from 'hono';

const app = new Hono();

const shown = async (value: unknown): Promise<unknown> => {
  if (Array.isArray(value)) return Promise.all(value.map(shown));
  if (!(value instanceof File)) return value;
  const { name, type, size } = value;
  const bytes = new Uint8Array(await value.arrayBuffer());
  return { name, type, size, sum: bytes.reduce((sum, byte) => (sum + byte) % 65_536, 0) };
};

app.post('/parsed', async (c) => {
  const body = await c.req.parseBody({ all: true });
  const entries = await Promise.all(Object.entries(body).map(async ([name, value]) => [name, await shown(value)]));
  return c.json(Object.fromEntries(entries));
});
app.post('/form', async (c) => {
  const form = await c.req.formData();
  return c.json(await Promise.all([...form].map(async ([name, value]) => [name, await shown(value)])));
});
app.post('/blob', async (c) => {
  const blob = await c.req.blob();
  return c.json([blob.type, blob.size]);
});
app.get('/answer', () => {
  const form = new FormData();
  form.append('a', '1');
  form.append('f', new File(['content'], 'f.txt', { type: 'text/plain' }));
  return new Response(form);
});
app.onError((error, c) => c.text(error.message, 400));

export default app;
