/** A plugin as somebody with Hono writes one: the middleware that hashes and signs, and nothing that knows of us. */
import { Hono } from 'hono';
import { basicAuth } from 'hono/basic-auth';
import { bearerAuth } from 'hono/bearer-auth';
import { getSignedCookie, setSignedCookie } from 'hono/cookie';
import { etag } from 'hono/etag';
import { type JwtVariables, jwt, sign } from 'hono/jwt';

const SECRET = 'a secret of the app’s own';
const app = new Hono<{ Variables: JwtVariables }>();

app.use('/basic/*', basicAuth({ username: 'ada', password: 'lovelace' }));
app.get('/basic/page', (c) => c.text('for Ada'));
app.use('/bearer/*', bearerAuth({ token: 'a-token' }));
app.get('/bearer/page', (c) => c.text('for the bearer'));
app.use('/etag/*', etag());
app.get('/etag/page', (c) => c.text('what does not change'));
app.get('/cookie/set', async (c) => {
  await setSignedCookie(c, 'who', 'ada', SECRET);
  return c.text('set');
});
app.get('/cookie/get', async (c) => c.json((await getSignedCookie(c, SECRET, 'who')) ?? null));
app.get('/jwt-new', async (c) => c.text(await sign({ sub: 'ada', exp: 4_000_000_000 }, SECRET, 'HS256')));
app.use('/jwt/*', jwt({ secret: SECRET, alg: 'HS256' }));
app.get('/jwt/page', (c) => c.json(c.get('jwtPayload')));

export default app;
