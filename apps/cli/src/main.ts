/** The command: `hauki`, and by its second name `x-hauki-core` with the notes' verbs beside. */
import { basename } from 'node:path';
import { BadInput } from '@hauki/mesh';
import { Command, CommanderError } from 'commander';
import { eventCommands } from './commands/events.ts';
import { evolveCommand } from './commands/evolve.ts';
import { fsCommands, notesVerbs } from './commands/fs.ts';
import { kernelCommands } from './commands/kernel.ts';
import { lifeCommands } from './commands/life.ts';
import { provisionCommands } from './commands/provision.ts';
import { revokeCommands } from './commands/revoke.ts';
import { runCommands } from './commands/run.ts';
import { spoolCommands } from './commands/spool.ts';
import { swarmCommands } from './commands/swarm.ts';
import { tokenCommands } from './commands/tokens.ts';
import { upCommands } from './commands/up.ts';
import { volumeCommands } from './commands/volumes.ts';
import { workerCommands } from './commands/workers.ts';
import { EXIT, foldPage, report } from './output.ts';

const name = basename(process.argv[1] ?? 'hauki').replace(/\.js$/, '');
const program = new Command(name === 'x-hauki-core' ? name : 'hauki')
  .description(
    'Source code in, an isolated live object out: called as if it were local, gone without a trace when let go.',
  )
  .version('0.1.0')
  .enablePositionalOptions()
  // Names alone: with their arguments beside them 80 columns have no room for what they do.
  .configureHelp({ subcommandTerm: (verb) => verb.name() })
  .option('--core <url>', 'the core; default: HAUKI_URL, else http://127.0.0.1:8000')
  .option('--data <folder>', 'the data folder; default: HAUKI_DATA, else /var/lib/hauki or ~/.local/share/hauki')
  .option('--json', 'print JSON')
  .addHelpText(
    'after',
    `
Try:
  hauki up                                          start a mesh here
  hauki clone examples/workers/greeter.ts --ttl 5m  make a worker
  hauki call <worker> greet Ada                     call it
  hauki ps                                          see what there is
  hauki logs <worker> -f                            what it says
  hauki why <worker>                                why it ended

Environment:
  HAUKI_URL, HAUKI_DATA             as --core and --data, for scripts with @hauki/mesh too
  HAUKI_TOKEN                       the token to ask a core with; else its admin token, in the data folder
  HAUKI_KERNEL, HAUKI_KERNEL_TOKEN  a kernel's URL, as --to, and its token; else that in the data folder
  NO_COLOR                          no colours

Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 not found, 4 not allowed, 5 no core answers,
6 no answer in time, 7 it lives (hauki why)`,
  )
  .showHelpAfterError('(hauki --help tells more)')
  .exitOverride();

program.commandsGroup('A mesh:');
upCommands(program);
runCommands(program);
eventCommands(program);
tokenCommands(program);
program.commandsGroup('Workers:');
workerCommands(program);
lifeCommands(program);
revokeCommands(program);
volumeCommands(program);
program.commandsGroup('What lasts:');
provisionCommands(program);
spoolCommands(program);
fsCommands(program);
program.commandsGroup('Microkernels:');
kernelCommands(program);
evolveCommand(program);
swarmCommands(program);
program.commandsGroup('Commands:');
if (name === 'x-hauki-core') notesVerbs(program);

const is_json = process.argv.includes('--json');

// Flags that every verb takes may stand before or after it.
const everywhere = (command: Command) => {
  command.exitOverride();
  command.configureOutput({
    writeOut: (page) => process.stdout.write(foldPage(page)),
    writeErr: (page) => process.stderr.write(foldPage(page)),
  });
  // What is wrong with a command line is told below then, as any error is.
  if (is_json) command.configureOutput({ writeErr: () => {} });
  for (const sub of command.commands) {
    // A verb that does something by itself takes them, whether it has verbs below it or not.
    if (sub.commands.length === 0 || ['token', 'modules'].includes(sub.name()))
      sub
        .option('--core <url>', 'the core')
        .option('--data <folder>', 'the data folder')
        .option('--json', 'print JSON');
    everywhere(sub);
  }
};
everywhere(program);

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // Whoever reads has read enough, as `head` does: nobody is left to write to.
  if (error.code === 'EPIPE') process.exit(EXIT.ok);
  console.error(`hauki: standard output cannot be written: ${error.message}`);
  process.exit(EXIT.failed);
});

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) process.exitCode = report(error, is_json);
  else if (error.exitCode === 0) process.exitCode = EXIT.ok;
  else {
    const why = error.code === 'commander.help' ? 'a verb is missing' : error.message.replace(/^error: /, '');
    if (is_json) report(new BadInput({ what: 'usage', why: `${why} (--help tells more)` }), true);
    process.exitCode = EXIT.usage;
  }
}
