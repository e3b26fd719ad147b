/**
 * TLS on the direct route, keyed by the ticket: a pre-shared key with forward secrecy (RFC 5489), no certificates. `node:tls` is
 * imported when the first connection needs it: it costs a new-born vault a tenth of its time.
 */
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { ConnectionLost } from '@hauki/protocol';
import { fromBase64url } from '../handshake.ts';

/** ECDHE with a pre-shared key (RFC 7905): the one such suite with an AEAD that Node's OpenSSL has. */
const PSK_CIPHERS = 'ECDHE-PSK-CHACHA20-POLY1305';

/** Wraps a connection to a worker in TLS. `jti` names the ticket, `key` is its session key. */
export async function secureStream(stream: Duplex, jti: string, key: string, timeout_ms: number): Promise<TLSSocket> {
  const { connect } = await import('node:tls');
  return new Promise((resolve, reject) => {
    const psk = { psk: Buffer.from(fromBase64url(key)), identity: jti };
    const secured = connect({
      socket: stream,
      ciphers: PSK_CIPHERS,
      minVersion: 'TLSv1.2',
      maxVersion: 'TLSv1.2',
      pskCallback: () => psk,
      // The key itself authenticates both ends; there is no name to check.
      checkServerIdentity: () => undefined,
    } as never);
    const timer = setTimeout(() => secured.destroy(new Error('no TLS handshake in time')), timeout_ms);
    secured.once('error', (error) => {
      clearTimeout(timer);
      reject(new ConnectionLost({ why: `TLS: ${error.message}` }));
    });
    secured.once('secureConnect', () => {
      clearTimeout(timer);
      resolve(secured);
    });
  });
}

type TlsServerOptions = ConstructorParameters<typeof TLSSocket>[1];

/** The worker's end: `keyOf` gives the session key (base64url) of a ticket that may be redeemed. */
export async function securedServerStream(
  socket: Socket,
  keyOf: (jti: string) => string | undefined,
): Promise<TLSSocket> {
  const { TLSSocket } = await import('node:tls');
  return new TLSSocket(socket, {
    isServer: true,
    ciphers: PSK_CIPHERS,
    minVersion: 'TLSv1.2',
    maxVersion: 'TLSv1.2',
    pskCallback: (_socket: unknown, identity: string) => {
      const key = keyOf(identity);
      return key === undefined ? null : fromBase64url(key);
    },
  } as TlsServerOptions);
}
