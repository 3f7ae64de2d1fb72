# Runs in the guest as root: sh guest.sh COMMAND. Connects the command with the host, gives it the
# mounts that containers need, and hands its exit code over.
modprobe -q virtio_console
# The disk that tests may write to.
modprobe -q virtio_blk

# The device of a port. The host announces ports one by one after the driver is loaded, and the
# kernel says so on its netlink socket, for which no shell has an ear: look until it is there.
port() {
    for _ in $(seq 100); do
        for port in /sys/class/virtio-ports/*; do
            if [ "$(cat "$port/name" 2>/dev/null)" = "$1" ]; then
                echo "/dev/${port##*/}"
                return
            fi
        done
        sleep 0.1
    done
}

# With udev, virtme-ng's own init has connected them already, and a port has one writer only.
if [ ! -e /dev/virtio-ports/virtme.ret ]; then
    exec >"$(port virtme.stdout)" 2>&1
    code_port=$(port virtme.ret)
fi

# The root file system is an overlay already, and no overlay can be laid over another.
for store in containerd containers docker; do
    mkdir -p "/var/lib/$store"
    mount -t tmpfs tmpfs "/var/lib/$store"
done
mount -t bpf bpf /sys/fs/bpf
for controller in cpuset cpu io memory pids; do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
mkdir -p /run/home /run/tmp
export HOME=/run/home TMPDIR=/run/tmp
# Tests may take all of this machine's memory.
export CTRACE_TEST_VM=1

sh -c "$1" </dev/null
code=$?
if [ -n "${code_port:-}" ]; then
    echo "$code" >"$code_port"
fi
exit "$code"
