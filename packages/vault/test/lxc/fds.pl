# Lists the descriptors a vault's first process was given.
opendir(my $dir, '/proc/self/fd') or die;
print 'fd ', $_, ' ', readlink("/proc/self/fd/$_"), "\n" for sort grep { /\d/ } readdir $dir;
# The driver must have seen this program run before it ends.
select(undef, undef, undef, 0.5);
