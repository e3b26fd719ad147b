/** A kernel on IRC: what it becomes is said on `#ops` once and in order, and what is said there changes nothing. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ircPlugin } from '@hauki/cli';
import { type Ircd, ircMissing, startIrcd, Watcher } from './support/ircd.ts';
import { useKernel } from './support/kernel.ts';
import { DRIVERS, missing, until } from './support/mesh.ts';

const MODULE = (text: string) => `export default { fetch: () => new Response('${text}') }`;

for (const driver of DRIVERS)
  describe(`a kernel on IRC, with ${driver} vaults`, { skip: ircMissing || missing(driver) }, () => {
    const kernel = useKernel({ drivers: [driver] });
    let ircd: Ircd;
    let watcher: Watcher;
    let name: string;
    let expected: string[];
    const route = (module: string) => `[${name}] Evolved. New routes available at /api/plugins/${module}/`;
    const evolve = async (module: string, text = 'x') => {
      await kernel.door.evolve({ target_module: module, content: MODULE(text), driver });
      expected.push(route(module));
    };
    /** `more`: text behind the source, for another digest. */
    const inject = async (more = '') => {
      const plugin = await ircPlugin(`127.0.0.1:${ircd.port}`, driver);
      await kernel.door.evolve({ ...plugin, content: plugin.content + more, driver });
      expected.push(route('irc'));
    };
    const state = () => kernel.json('irc/');
    /** All changes there are have been said, and the server has confirmed them. */
    const settled = () =>
      until(
        'everything was said',
        async () => {
          const { announced, joined } = await state();
          return joined && announced === (await kernel.door.history()).at(-1)!.seq;
        },
        60_000,
      );
    const announcements = () => watcher.lines(/^\[Microkernel-[a-z0-9]+\] (?:Online|Evolved)\./);

    before(async () => {
      ircd = await startIrcd();
      watcher = await new Watcher(ircd.port).join();
      ({ kernel: name } = await kernel.door.status());
      expected = [`[${name}] Online. Awaiting DNA Injection.`];
    });
    after(async () => {
      watcher?.leave();
      await ircd?.stop();
    });

    it('says that it is online, and what it becomes, in the notes’ words', async () => {
      await inject();
      await kernel.json('irc/settings', { method: 'PUT', body: JSON.stringify({ pace_ms: 20, heartbeat_s: 0 }) });
      await evolve('data_scraper');
      await settled();
      assert.deepEqual(announcements(), expected);
    });

    it('says each change once and in order while the plugin itself is swapped', async () => {
      for (const module of ['e', 'f', 'g', 'h']) await evolve(module);
      await inject('\n// 2');
      await evolve('i');
      await inject('\n// 3');
      await kernel.door.rollback('irc');
      expected.push(route('irc'));
      await kernel.door.remove('i');
      expected.push(`[${name}] Evolved. Routes removed from /api/plugins/i/`);
      await settled();
      assert.deepEqual(announcements(), expected);
    });

    // What follows is the plugin's and the kernel's own, whatever vault it is in.
    if (driver !== 'quickjs') return;

    it('answers !status and !routes, to all or to the one that is named', async () => {
      watcher.say('!status');
      await until('an answer', () => watcher.lines(': data_scraper v1 serving (0 requests), e v1').length > 0);
      watcher.say(`!routes ${name.replace('Microkernel-', '')}`);
      await until('the routes', () => watcher.lines(`[${name}] /api/plugins/data_scraper/ /api/plugins/e/`).length > 0);
      const before = watcher.heard.length;
      watcher.say('!status Microkernel-nobody');
      watcher.say('!evolve data_scraper');
      watcher.say('!routes');
      await until('the last answer', () => watcher.lines(`[${name}] /api/plugins/data_scraper/`).length > 1);
      assert.equal(watcher.heard.length, before + 1);
    });

    it('says each change once and in order when the server is killed and comes back', async () => {
      await evolve('a');
      await settled();
      await ircd.kill();
      for (const module of ['b', 'c', 'a']) await evolve(module, 'two');
      await until('the plugin says what is wrong', async () => (await kernel.json('irc/')).problem !== null);
      // The kernel waits until somebody is there to hear it.
      kernel.process.child.kill('SIGSTOP');
      await ircd.start();
      await watcher.join();
      kernel.process.child.kill('SIGCONT');
      await evolve('d');
      await settled();
      assert.deepEqual(announcements(), expected);
      // What was wrong is told while it is so.
      const { joined, problem } = await kernel.json('irc/');
      assert.deepEqual([joined, problem], [true, null]);
    });

    it('says nothing twice after the kernel was killed and started again, but that it is online', async () => {
      await kernel.restart();
      expected.push(`[${name}] Online. Awaiting DNA Injection.`);
      await evolve('j');
      await settled();
      assert.deepEqual(announcements(), expected);
    });

    it('comes back to a channel that it was kicked from, and says then what it had to say', async () => {
      watcher.send(`KICK #ops ${(await state()).nick} :out`);
      await until('it is out', async () => !(await state()).joined);
      await evolve('k');
      await settled();
      assert.deepEqual(announcements(), expected);
    });

    it('stays away while it is staged, refused or tried dry', async () => {
      const joins = () => watcher.raw.filter((line) => / JOIN :?#ops/.test(line)).length;
      const before = joins();
      const { content: source, language } = await ircPlugin(`127.0.0.1:${ircd.port}`, driver);
      const tests = [{ path: '/', expect: { status: 500 } }];
      await assert.rejects(
        kernel.door.evolve({ target_module: 'irc', content: `${source}\n// 4`, language, driver, tests }),
      );
      await kernel.door.evolve({ target_module: 'irc', content: `${source}\n// 5`, language, driver, dry_run: true });
      await evolve('l');
      await settled();
      assert.equal(joins(), before);
      assert.deepEqual(announcements(), expected);
    });

    it('says a heartbeat when it is to', async () => {
      await kernel.json('irc/settings', { method: 'PUT', body: JSON.stringify({ heartbeat_s: 1 }) });
      await evolve('m');
      await until('two heartbeats', () => watcher.lines(/^\[Microkernel-\w+\] up \d+ s, \d+ modules: /).length > 3);
      const refused = await kernel.get('irc/settings', { method: 'PUT', body: JSON.stringify({ heartbeat_s: -1 }) });
      assert.equal(refused.status, 400);
    });
  });
