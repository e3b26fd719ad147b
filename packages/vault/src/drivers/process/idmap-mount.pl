# Mounts a volume with the vault's id in the place of root's, so that no file on it changes its owner although each vault
# has another id; then goes on as the command given. mount(8) can do so from util-linux 2.39 on; LXC has its own way.
# Runs as root in a mount namespace of its own. Arguments: the number of unshare, the id, volume, target, command.
use strict;
my ($unshare, $id, $volume, $target, @command) = @ARGV;
sub fail { print STDERR "the volume cannot be mounted with its ids mapped: $_[0]: $!\n"; exit 96 }

# A user namespace, for its map alone. Whoever holds it open needs no process in it.
pipe(my $ready, my $made) && pipe(my $wait, my $done) or fail 'pipe';
my $child = fork() // fail 'fork';
if ($child == 0) {
  close $done;
  syscall($unshare, 0x10000000) == 0 or exit 1;
  syswrite $made, 'x';
  sysread $wait, my $end, 1;
  exit 0;
}
close $made;
sysread($ready, my $told, 1) or fail 'user namespace';
for my $map ('uid_map', 'gid_map') {
  open my $file, '>', "/proc/$child/$map" or fail $map;
  syswrite($file, "0 $id 1\n") or fail $map;
}
open my $namespace, '<', "/proc/$child/ns/user" or fail 'namespace';

# open_tree, mount_setattr, move_mount: their numbers are the same on every architecture.
my $nothing = "\0";
my $tree = syscall(428, -100, "$volume\0", 0x80001);
$tree >= 0 or fail 'open_tree';
my $attributes = pack('Q4', 0x00100000, 0, 0, fileno $namespace);
syscall(442, $tree, $nothing, 0x1000, $attributes, 32) == 0 or fail 'mount_setattr';
syscall(429, $tree, $nothing, -100, "$target\0", 4) == 0 or fail 'move_mount';
close $done;
waitpid $child, 0;
exec @command or fail 'exec';
