#!/bin/bash
# `npm run test:cgroup2`: the tests of vaults on a machine whose cgroups are all v2 and whose AppArmor is on, whatever this
# one has: a Debian of its own, emulated by QEMU, which needs no KVM and changes nothing here. Root, on Debian.
#
# One boot for each of these, or of the arguments: a file of tests, or any other script, with words for it after commas;
# `bare:` before it for a machine without systemd, where no controller is enabled below the root yet; `one:` for a machine
# with one processor: with two emulated at the same time, Node itself falls in the escape suite before its first attempt.
# The system is made once of Debian's packages, which alone are fetched, and kept in the user's cache.
set -euo pipefail
PLAN=(
  packages/vault/test/lxc-cgroups.test.ts
  packages/vault/test/lxc-confinement.test.ts
  packages/vault/test/lxc-endings.test.ts
  packages/vault/test/lxc-escape.test.ts
  packages/vault/test/lxc-unfiltered.test.ts
  packages/vault/test/process/process.test.ts
  packages/vault/test/conformance.test.ts
  packages/vault/test/conformance-python.test.ts
  bare:packages/vault/test/lxc-confinement.test.ts
  bare:packages/vault/test/process/process.test.ts
  one:test/escape/run.ts
)
DEADLINE_S=${DEADLINE_S:-1800} # of one boot: emulated, tests take ten times as long as elsewhere
MEMORY=5G                      # more than twenty vaults at once have
PACKAGES=systemd-sysv,linux-image-cloud-amd64,lxc,bubblewrap,apparmor,iproute2,libatomic1,procps
PACKAGES+=,python3,python3-fastapi,python3-uvloop,python3-httptools

cd "$(dirname "$0")/.."
for tool in qemu-system-x86_64:qemu-system-x86 debootstrap:debootstrap mke2fs:e2fsprogs; do
  command -v "${tool%:*}" >/dev/null ||
    { echo "${tool%:*} is missing; install it: apt-get install --no-install-recommends ${tool#*:}"; exit 1; }
done
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hauki/cgroup2-vm
mkdir -p "$cache"
work=$(mktemp -d "$cache/work-XXXXXX")
vm=
trap '[ -z "$vm" ] || kill "$vm" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# What runs inside, as systemd's only service or as process 1.
inside() {
  cat <<'INSIDE'
#!/bin/bash
if [ $$ = 1 ]; then
  exec </dev/null >/dev/ttyS0 2>&1
  mount -t cgroup2 cgroup2 /sys/fs/cgroup && mount /dev/vdb /repo && ip link set lo up || exit
fi
export PATH=/repo/node_modules/.bin:$PATH HOME=/root NO_COLOR=1 CI=true HAUKI_NO_INSTALL=1 HAUKI_PATIENCE=10
cd /repo || exit
IFS=, read -ra words < <(tr ' ' '\n' </proc/cmdline | sed -n 's/^hauki\.run=//p')
echo "kernel $(uname -r), controllers below the root: $(cat /sys/fs/cgroup/cgroup.subtree_control)"
case ${words[0]} in *.test.ts) how=(--test --test-timeout=900000 --test-reporter=spec) ;; *) how=() ;; esac
node --disable-warning=ExperimentalWarning "${how[@]}" "${words[@]}"
echo "hauki.ended $?"
sync
if [ $$ = 1 ]; then echo o >/proc/sysrq-trigger; sleep 60; else systemctl poweroff -ff; fi
INSIDE
}

service() {
  cat <<'UNIT'
[Unit]
Requires=basic.target
After=basic.target
[Service]
Type=oneshot
ExecStart=/sbin/hauki-tests
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
UNIT
}

# Made anew when what it is made of changes.
system=$cache/$( (echo "$PACKAGES" && inside && service) | sha256sum | cut -c1-16)
if [ ! -d "$system" ]; then
  echo "Making the system, which takes minutes…"
  root=$work/root
  debootstrap --variant=minbase --include="$PACKAGES" bookworm "$root" >"$work/log" 2>&1 || { tail "$work/log"; exit 1; }
  rm -rf "$root"/var/cache/apt/archives/*.deb
  mkdir "$root/repo" "$work/system"
  echo '/dev/vdb /repo ext4 rw 0 0' >"$root/etc/fstab"
  inside >"$root/sbin/hauki-tests"
  chmod 755 "$root/sbin/hauki-tests"
  service >"$root/etc/systemd/system/hauki-tests.service"
  cp "$root"/boot/vmlinuz-* "$work/system/kernel"
  cp "$root"/boot/initrd.img-* "$work/system/initrd"
  mke2fs -q -t ext4 -d "$root" "$work/system/disk" 4G >/dev/null
  rm -rf "$root"
  find "$cache" -mindepth 1 -maxdepth 1 ! -name 'work-*' -exec rm -rf {} +
  mv "$work/system" "$system"
fi

# This tree as it is, with its modules.
mke2fs -q -t ext4 -d . "$work/repo" "$(($(du -sm . | cut -f1) * 5 / 4 + 64))M" >/dev/null

failed=0
[ $# = 0 ] || PLAN=("$@")
for entry in "${PLAN[@]}"; do
  echo "== $entry"
  words="hauki.run=${entry#*:}"
  case $entry in bare:*) words+=" init=/sbin/hauki-tests" ;; *) words+=" systemd.unit=hauki-tests.service" ;; esac
  case $entry in one:*) processors=(-accel tcg,thread=single -smp 1) ;; *) processors=(-accel tcg,thread=multi -smp 2) ;; esac
  : >"$work/console"
  # What is written to the disks is forgotten.
  TMPDIR=$work timeout -k 5 "$DEADLINE_S" nice -n 19 qemu-system-x86_64 -machine q35 "${processors[@]}" -cpu Nehalem \
    -m "$MEMORY" -nodefaults -display none -no-reboot -serial "file:$work/console" \
    -kernel "$system/kernel" -initrd "$system/initrd" \
    -drive "file=$system/disk,if=virtio,format=raw,snapshot=on" -drive "file=$work/repo,if=virtio,format=raw,snapshot=on" \
    -append "root=/dev/vda rw console=ttyS0 mitigations=off quiet panic=-1 $words" &
  vm=$!
  wait "$vm" || echo "the machine was stopped after $DEADLINE_S s"
  vm=
  tr -d '\r' <"$work/console"
  grep -q '^hauki.ended 0' "$work/console" || { failed=$((failed + 1)); echo "== failed: $entry"; }
done
echo "${#PLAN[@]} boots, $failed failed"
[ "$failed" = 0 ]
