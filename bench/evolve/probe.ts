/**
 * Who posts a version and asks for its first answer: a process of its own that does nothing else, with connections that
 * stay open. Where it may (root), it runs before all others, so that no time is counted in which the asker itself waits
 * for the processor or sifts its heap. Kernels and peers are asked by the same one.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { setPriority } from 'node:os';
import { fileURLToPath } from 'node:url';

interface Asked {
  url: string;
  headers: Record<string, string>;
  /** POSTed, as JSON; else a GET. */
  body?: string;
}

/** What is changed, if not by others, and what then answers with the word. */
export interface Change {
  post?: Asked;
  get: Asked;
  word: string;
}

/** From the post, and from its answer, to the first answer with the word. */
export interface Took {
  live_ms: number;
  cutover_ms: number;
}

const PRIORITY = -10;
const GIVES_UP_MS = 20_000;
const agent = new Agent({ keepAlive: true });

function ask({ url, headers, body }: Asked): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const type = body === undefined ? {} : { 'content-type': 'application/json' };
    const options = { agent, method: body === undefined ? 'GET' : 'POST', headers: { ...headers, ...type } };
    const asked = request(url, options, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (chunk: string) => {
        text += chunk;
      });
      answer.on('end', () => resolve({ status: answer.statusCode!, text }));
      answer.on('error', reject);
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

async function change({ post, get, word }: Change): Promise<Took> {
  const began = performance.now();
  if (post) {
    const { status, text } = await ask(post);
    if (status !== 200) throw new Error(`${post.url}: ${status} ${text.slice(0, 300)}`);
  }
  const posted = performance.now();
  for (const until = posted + GIVES_UP_MS; performance.now() < until; ) {
    const text = await ask(get).then(
      (answer) => answer.text,
      () => '',
    );
    if (text.includes(`"${word}"`))
      return { live_ms: performance.now() - began, cutover_ms: performance.now() - posted };
  }
  throw new Error(`${get.url} never said ${word}`);
}

export class Probe {
  readonly #child: ChildProcess;

  constructor() {
    this.#child = fork(fileURLToPath(import.meta.url), ['probe'], {
      execArgv: ['--disable-warning=ExperimentalWarning'],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
  }

  /** One at a time. */
  async change(what: Change): Promise<Took> {
    const told = once(this.#child, 'message');
    this.#child.send(what);
    const [took] = (await told) as [Took | { failed: string }];
    if ('failed' in took) throw new Error(took.failed);
    return took;
  }

  stop(): void {
    this.#child.disconnect();
  }
}

if (process.argv[2] === 'probe' && process.send) {
  try {
    setPriority(PRIORITY);
  } catch {
    // Not root: then it is one among the others.
  }
  process.on('message', (what: Change) =>
    change(what).then(
      (took) => process.send!(took),
      (error) => process.send!({ failed: String(error) }),
    ),
  );
  process.on('disconnect', () => process.exit(0));
}
