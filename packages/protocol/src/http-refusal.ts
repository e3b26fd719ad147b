/**
 * What an HTTP framework refuses by itself, in our errors: it is known as data alone, so that the core and the kernels say
 * the same, and nothing of the inside is told.
 */
import { InternalError } from './called-errors.ts';
import { BadInput, TooLarge } from './caller-errors.ts';
import { MeshError } from './mesh-error.ts';

/** An error as Fastify makes it. */
export interface FrameworkError {
  code?: string;
  statusCode?: number;
  message: string;
}

const WHY: Record<string, [what: string, why: string]> = {
  FST_ERR_CTP_INVALID_JSON_BODY: ['body', 'it is no valid JSON, or has a member __proto__ or constructor.prototype'],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ['content-type', 'this route takes JSON: application/json'],
  FST_ERR_BAD_URL: ['the path', 'it has a % that begins no character in UTF-8'],
  FST_ERR_MAX_PARAM_LENGTH: ['the path', 'a part of it is longer than any name is'],
};

/** Any error as one of ours. `where`: whose fault it is, and whose log says more, where it is not the sender's. */
export function httpRefusal(error: FrameworkError, where: 'core' | 'kernel', body_bytes: number): MeshError {
  if (error instanceof MeshError) return error;
  const { code = '', statusCode, message } = error;
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') return new TooLarge({ what: 'The request body', limit_bytes: body_bytes });
  const [what, why] = WHY[code] ?? ['the request', message];
  if (statusCode && statusCode < 500) return new BadInput({ what, why });
  return new InternalError({ why: `something in the ${where} failed; its log says what` });
}
