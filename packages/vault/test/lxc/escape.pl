# Tries to leave a vault by raw system calls (x86-64 numbers), and tells the outcome of each: its errno, or OPEN.
# Perl is on every Debian, and its syscall() needs no compiler. Argument: the port of a service on the host's loopback.
$| = 1;
my $port = shift;
my $host = pack('S n a4 x8', 2, $port, "\x7f\0\0\1");
my $nowhere = pack('S x14', 0);
my $any_port = pack('S n a4 x8', 2, 0, "\x7f\0\0\1");
sub try { my ($name, @call) = @_; $! = 0; my $r = syscall($call[0], @call[1 .. $#call]); tell_of($name, $r); return $r }
sub tell_of { my ($name, $r) = @_; print "$name ", ($r < 0 ? $! + 0 : 'OPEN'), "\n" }
# What the service says, where the call before it succeeded; on a slow machine that may take a while.
sub banner { my ($name, $fd, $called) = @_; my $text = "\0" x 64; my $n;
  syscall(72, $fd, 4, 2048);
  for (1 .. ($called < 0 ? 1 : 150)) {
    select(undef, undef, undef, 0.1); $n = syscall(0, $fd, $text, 64);
    last if $n >= 0 || $! != 11;
  }
  syscall(72, $fd, 4, 0);
  print "$name ", ($n > 0 && $text =~ /SECRET/ ? 'READ' : 'unread'), "\n" }
sub port_of { my ($fd) = @_; my $name = "\0" x 16; my $size = pack('L', 16); syscall(51, $fd, $name, $size);
  return (unpack('S n', $name))[1] }

# Accepted sockets: the test connects twice. Node left the listener non-blocking.
syscall(72, 3, 4, 0);
my $one = syscall(288, 3, 0, 0, 0);
my $two = syscall(288, 3, 0, 0, 0);
print "accepted ", ($one >= 0 && $two >= 0 ? 'yes' : 'no'), "\n";
try('accepted-attach-filter', 54, $one, 1, 26, pack('S x6 Q', 0, 0), 16);
try('accepted-reuseport', 54, $one, 1, 15, pack('l', 1), 4);
try('accepted-sendmsg', 46, $one, "\0" x 56, 0);
try('accepted-sendmmsg', 307, $one, "\0" x 64, 1, 0x20000000);
try('accepted-siocgifconf', 16, $one, 0x8912, "\0" x 16);
try('accepted-unspec', 42, $one, $nowhere, 16);
banner('accepted-banner', $one, try('accepted-connect', 42, $one, $host, 16));
try('accepted-shutdown', 48, $two, 2);
try('accepted-unspec-2', 42, $two, $nowhere, 16);
try('accepted-bind', 49, $two, $any_port, 16);
banner('accepted-fastopen-banner', $two, try('accepted-fastopen', 44, $two, 'x', 1, 0x20000000, $host, 16));

# The listening socket.
my $mine = port_of(3);
try('listener-siocgifconf', 16, 3, 0x8912, "\0" x 16);
try('listener-tiocsti', 16, 3, 0x5412, 'x');
try('listener-shutdown', 48, 3, 2);
syscall(50, 3, 16);
print 'listener-moved ', (port_of(3) == $mine ? 'no' : 'OPEN'), "\n";
syscall(48, 3, 2);
banner('listener-fastopen-banner', 3, try('listener-fastopen', 44, 3, 'x', 1, 0x20000000, $host, 16));
try('listener-unspec', 42, 3, $nowhere, 16);
banner('listener-banner', 3, try('listener-connect', 42, 3, $host, 16));
syscall(42, 3, $nowhere, 16);
try('listener-bind', 49, 3, $any_port, 16);

# New sockets.
try("socket-$_->[0]", 41, $_->[1], $_->[2], 0)
  for (['inet', 2, 1], ['inet6', 10, 1], ['unix', 1, 1], ['netlink', 16, 3], ['packet', 17, 3], ['alg', 38, 5], ['vsock', 40, 1]);
try('socketpair', 53, 1, 1, 0, "\0" x 8);

# The kernel's wider surface.
for (['clone-user', 0x10000000 | 17], ['clone-fork', 17]) {
  $! = 0;
  my $r = syscall(56, $_->[1], 0, 0, 0, 0);
  syscall(231, 0) if $r == 0;
  tell_of($_->[0], $r);
}
try('clone3', 435, "\0" x 88, 0);
try('io_uring_setup', 425, 8, "\0" x 120);
try('mount', 165, 'tmpfs', '/tmp', 'tmpfs', 0, 0);
try('remount', 165, 0, '/', 0, 0x1020, 0);
try('umount', 166, '/tmp', 2);
try('pivot_root', 155, '/tmp', '/tmp');
try('setns', 308, 3, 0);
# PTRACE_ATTACH to a child; where no child can be made, to itself.
my $child = fork() // 1;
if ($child == 0) { sleep 5; exit }
try('ptrace', 101, 16, $child, 0, 0);
kill 9, $child if $child > 1;
try('process_vm_readv', 310, 1, 0, 0, 0, 0, 0);
try('kcmp', 312, 1, 1, 0, 0, 0);
try('pidfd_open', 434, 1, 0);
try('pidfd_getfd', 438, 3, 0, 0);
try('keyctl', 250, 0, -3, 1);
try('add_key', 248, 'user', 'k', 'v', 1, -3);
try('request_key', 249, 'user', 'k', 0, 0);
try('bpf', 321, 0, "\0" x 64, 64);
try('perf_event_open', 298, "\0" x 128, 0, -1, -1, 0);
try('userfaultfd', 323, 1);
try('memfd_create', 319, 'm', 0);
try('name_to_handle_at', 303, -100, '/', "\0" x 128, "\0" x 8, 0);
try('open_by_handle_at', 304, -100, "\0" x 128, 0);
try('init_module', 175, "\0", 1, '');
try('finit_module', 313, 3, '', 0);
try('kexec_load', 246, 0, 0, 0, 0);
try('syslog', 103, 3, "\0" x 16, 16);
try('personality', 135, 0);
try('sethostname', 170, 'x', 1);
try('mknod', 133, '/tmp/n', 0020666, 0x0101);
try('inotify_init', 294, 0);
try('shmget', 29, 0, 4096, 0600);
# What others do in the root that they share, and on the machine: F_NOTIFY for DN_ACCESS, F_SETSIG, flock, sysinfo.
my ($root, $names) = ('/', '/etc/passwd');
my $folder = syscall(2, $root, 0x10000, 0);
try('fcntl-setsig', 72, $folder, 10, 34);
try('fcntl-notify', 72, $folder, 1026, 1);
try('fcntl-notify-x', 72, $folder, 0x100000000 + 1026, 1);
try('flock', 73, syscall(2, $names, 0, 0), 1);
try('sysinfo', 99, "\0" x 128);
# The hard limit of open files; whoever may raise it may raise all.
my $limit = pack('QQ', 0, 0);
syscall(302, 0, 7, 0, $limit);
my $most = (unpack('QQ', $limit))[1];
try('raise-limit', 302, 0, 7, pack('QQ', $most + 1, $most + 1), 0);
# Last but for what would stop this program: after these it may do less, or more.
try('unshare-user', 272, 0x10000000);
try('chroot', 161, '/tmp');
try('prctl-no-death-signal', 157, 1, 0);
try('prctl-seccomp', 157, 22, 1, 0);
print "done\n";
# The same calls by other numbers: the last one, since it may be answered with the end of the process.
try('x32-socket', 0x40000000 + 41, 2, 1, 0);
