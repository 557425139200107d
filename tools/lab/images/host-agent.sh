#!/bin/sh
# The lab's agent on an emulated host. It does what the lab asks for on the port "control": runs a scenario's command with the port
# "guest" as its console, signals it, and hands back its status and its files.

# Ports have names only once both ends have said hello.
port() {
    until grep -lx "$1" /sys/class/virtio-ports/*/name >/run/port 2>/dev/null; do sleep 0.1; done
    echo "/dev/$(basename "$(dirname "$(cat /run/port)")")"
}
exec 3<>"$(port control)"
guest=$(port guest)

run() {
    cd "/lab/scenarios/$1" || return
    ln -sfn "$PWD" /run/scenario
    mkdir -p out
    setsid sh ./command <>"$guest" >&0 2>out/stderr.log &
    echo $! >/run/command
    wait $!
    status=$?
    # A port has one user at a time, and a killed monitor takes a moment to let go of it.
    until printf '\036end %s\036' "$1" >"$guest"; do sleep 0.1; done 2>/dev/null
    echo "exit $status" >&3
    for file in out/*; do
        echo "file ${file#out/} $(stat -c %s "$file")" >&3
        cat "$file" >&3
    done
    echo "end" >&3
    cd /
}

# For the host's console: what every thread of a monitor that has to be killed waits for, and whether its vCPUs still run.
threads() {
    for pid in $(pidof ghest); do
        for task in /proc/"$pid"/task/*; do
            echo "lab: $(cat "$task/comm"): state and ticks $(cut -d ' ' -f 3,14,15 "$task/stat"), in $(cat "$task/wchan")," \
                "system call $(cat "$task/syscall")"
        done
    done
    for round in 1 2; do
        grep -H . /sys/kernel/debug/kvm/*/exits /sys/kernel/debug/kvm/*/wfi_exit_stat 2>/dev/null
        sleep 1
    done
    [ -S /run/scenario/control ] && timeout 5 ghest ctl /run/scenario/control status
}

echo "ready" >&3
while :; do
    while read -r verb argument <&3; do
        case $verb in
            run) run "$argument" & ;;
            do) (cd /run/scenario && eval "$argument") ;;
            ask) echo "answer $(cd /run/scenario && eval "$argument" | tail -n 1)" >&3 ;;
            stop) threads >/dev/console 2>&1; kill -KILL "-$(cat /run/command)" ;;
            poweroff) poweroff -f ;;
        esac
    done
    sleep 0.1
done
