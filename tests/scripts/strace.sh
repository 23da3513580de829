# What strace says, without ids, addresses and times. The same in the guest and on Linux.
plain() {
    sed -e 's/^[0-9]* *//' -e 's/si_pid=[0-9]*/si_pid=N/' -e 's/si_uid=[0-9]*/si_uid=N/' -e 's/  *= /=/' -e 's/=[0-9][0-9]*$/=N/' \
        -e 's/kill([0-9]*/kill(N/' -e 's/si_utime=.*si_stime=[^}]*/times/' "$1"
}
echo "one process"
strace -qq -e trace=write,kill,exit_group -o out sh -c 'echo one; kill -USR1 $$; echo never'
echo "status $?"
plain out
echo "with its children"
strace -f -qq -e trace=write,exit_group -e signal=none -o out sh -c '(echo two); echo three | cat; exit 5'
echo "status $?"
# Where another process comes in between, a call's end stands on a line of its own.
plain out | grep -v resumed | sed 's/ <unfinished.*//; s/).*//' | sort
echo "counted"
strace -c -e trace=write -o out sh -c 'echo a; echo b; echo c'
awk '$NF == "write" { print $4 }' out
echo "attached"
sh -c 'sleep 1; exit 7' &
child=$!
strace -qq -e trace=exit_group -p $child -o out
wait $child
echo "status $?"
plain out
echo "another result"
strace -qq -e trace=chdir -e inject=chdir:error=EPERM -o out sh -c 'cd / || echo refused' 2>/dev/null
plain out
