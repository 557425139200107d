#!/busybox sh
# Init of a guest, up to where the scenario's own script goes on.

/busybox mkdir -p /bin /proc /sys /dev /tmp
/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "/modules/$module.ko" || echo "lab: cannot load $module"
done </modules/order

