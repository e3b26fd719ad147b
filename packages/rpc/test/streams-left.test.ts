/** Streams that nobody has any more are left, so that their producers end. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { join, KINDS } from './joined.ts';
import { until } from './support.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

for (const kind of KINDS)
  describe(`streams over ${kind} that were collected`, () => {
    it('end on the side that gives them, read in part or not at all, but none that somebody waits for', async () => {
      let producing = 0;
      async function* numbers() {
        producing++;
        try {
          for (let i = 0; ; i++) yield i;
        } finally {
          producing--;
        }
      }
      const bytes = () => {
        const items = numbers();
        return new ReadableStream({
          pull: async (controller) => controller.enqueue((await items.next()).value),
          cancel: () => void items.return(),
        });
      };
      const heard: unknown[] = [];
      await using t = await join(
        {
          ignore: (_items: unknown) => {},
          async begin(items: AsyncIterator<number>) {
            await items.next();
          },
          // Whoever waits has nothing but the promise.
          wait(items: AsyncIterator<number>) {
            void items.next().then(({ value }) => heard.push(value));
          },
        },
        {},
        { kind },
      );
      const gate = Promise.withResolvers<number>();
      await t.on_b.wait(
        (async function* () {
          yield await gate.promise;
        })(),
      );
      for (let i = 0; i < 10; i++) {
        await t.on_b.ignore(numbers());
        await t.on_b.ignore(bytes());
        await t.on_b.begin(numbers());
      }
      await until(() => {
        collectGarbage();
        return producing === 0 && t.a.stats().streams === 1;
      }, 'all to be left');
      gate.resolve(7);
      await until(() => heard.length > 0, 'the one that is waited for to give its item');
      assert.deepEqual(heard, [7]);
    });
  });
