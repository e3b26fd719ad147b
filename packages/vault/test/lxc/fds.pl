# Lists the descriptors a vault's first process was given.
opendir(my $dir, '/proc/self/fd') or die;
print 'fd ', $_, ' ', readlink("/proc/self/fd/$_"), "\n" for sort grep { /\d/ } readdir $dir;
