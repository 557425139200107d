#!/lab/busybox sh
# Init of an emulated host: mounts, modules, disks. Then it is the lab's agent, or it hands over to the systemd of a Debian server,
# which runs the agent as a service.

# passt changes its root by pivot_root(2), which does not replace the initramfs itself: it gets a mount of it.
if [ -z "$LAB_ROOT" ]; then
    /lab/busybox mkdir -p /rootfs
    /lab/busybox mount -o bind / /rootfs
    cd /rootfs && /lab/busybox mount -o move . /
    exec /lab/busybox env LAB_ROOT=1 /lab/busybox chroot . /init
fi

/lab/busybox mkdir -p /bin /proc /sys /dev /run /tmp
/lab/busybox --install -s /bin
export PATH=/bin:/lab/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t debugfs debugfs /sys/kernel/debug
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
hostname lab
ip link set lo up

while read -r module; do
    insmod "/lab/modules/$module.ko" || echo "lab: cannot load $module"
done </lab/modules/order

# Disks, by their numbers.
mkdir -p /run/disks
for serial in /sys/block/vd*/serial; do
    [ -f "$serial" ] && ln -s "/dev/$(basename "$(dirname "$serial")")" "/run/disks/$(cat "$serial")"
done

if grep -q lab.shell /proc/cmdline; then
    echo "lab: ghest is in the path, kernels are in /lab/kernels; 'poweroff -f' ends this host."
    echo "lab: a scenario is run by 'cd NAME && mkdir out && sh command'; Ctrl-A a is the Ctrl-A that ghest sees."
    cd /lab/scenarios || cd /lab
    setsid cttyhack sh
    poweroff -f
fi

# The server's own init is process 1 of the host, with the kernel and the modules that are loaded already.
if [ -f /lab/host-disk ]; then
    mkdir /server
    mount -t ext4 "/run/disks/$(cat /lab/host-disk)" /server
    mkdir -p /server/lab /run/systemd/system/multi-user.target.wants
    mount -o bind /lab /server/lab
    cp /lab/lab.service /run/systemd/system/
    ln -s ../lab.service /run/systemd/system/multi-user.target.wants/
    for directory in dev proc run sys; do mount -o move "/$directory" "/server/$directory"; done
    cd /server && mount -o move . /
    exec env -i TERM=linux chroot . /sbin/init
fi

exec sh /lab/agent
