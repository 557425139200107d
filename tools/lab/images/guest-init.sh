#!/busybox sh
# Init of a guest, up to where the scenario's own script goes on.

/busybox mkdir -p /bin /proc /sys /dev /tmp
/busybox --install -s /bin
export PATH=/bin:/lab/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
# The kernel's log belongs to the transcript: written by the kernel itself it takes an exit for each character of its boot.
grep -qw quiet /proc/cmdline && dmesg
while read -r module; do
    insmod "/modules/$module.ko" || echo "lab: cannot load $module"
done </modules/order

