# Attempts that take more than one system call. First argument: which.
$| = 1;
my ($what, @rest) = @ARGV;
# The driver must have seen this program run before it ends.
select(undef, undef, undef, 0.5);
if ($what eq 'bomb') {
  my @children;
  while (@children < 200) { my $pid = fork(); last unless defined $pid; if ($pid == 0) { sleep 20; exit } push @children, $pid }
  my $why = $! . '';
  kill 9, @children;
  print @children >= 200 ? "OPEN 200 processes\n" : scalar(@children) . " processes, then: $why\n";
} elsif ($what eq 'setuid') {
  # $rest[0] is a copy of cat that is owned by root and setuid; $rest[1] a file that only root may read.
  exec { $rest[0] } 'cat', $rest[1];
  print "exec: $!\n";
} elsif ($what eq 'descriptors') {
  # Whatever was inherited beyond 0-4.
  my @found = grep { my $flags = syscall(72, $_, 1, 0); $flags >= 0 } 5 .. 255;
  my $text = "\0" x 64;
  for my $fd (@found) { next if syscall(17, $fd, $text, 64, 0) <= 0; print "$text\n" }
  print 'beyond 4: ', (@found ? join(' ', @found) : 'none'), "\n";
} elsif ($what eq 'touch') {
  # utimensat, to the time that it is: who may write may do that. And it can be written to all the same.
  my ($null, $path) = (undef, '/dev/null');
  print syscall(280, -100, $path, 0, 0) >= 0 ? "OPEN\n" : "not touched: $!\n";
  open($null, '>', $path) && syswrite($null, 'x') or print "OPEN: it cannot be written to: $!\n";
}
