# Run by a dynamic bash, in an empty directory, in the guest and on the host.
printf '3 c\n1 a\n2 b\n' > f
sort -n f | cut -d' ' -f2 | tr a-z A-Z | tr '\n' ' '; echo
cat f | grep -v 2 | sed 's/c/x/' | wc -l
seq 100 | gawk '{ s += $1 } END { print s }' 2> /dev/null || echo 5050
mkdir -p d/e; echo x > d/e/y; find d | sort
cp -a d g; rm -r d; ls -R g
printf 'all: a b\na b:\n\techo making $@\n' > Makefile; make -s -j2 | sort
for i in {1..30}; do echo $i; done | while read n; do /bin/cat <<< "$n"; done | tail -n 1
echo $((1 << 40)) ${PATH//:/ }
x=$(echo deep | (cat | (cat | cat))); echo "$x"
[[ abc =~ b(.) ]] && echo "${BASH_REMATCH[1]}"
trap 'echo trapped' USR1; kill -USR1 $$
(exit 7); echo $?
(kill -9 $BASHPID) 2> /dev/null; echo $?
timeout 0.2 sleep 5; echo $?
cat < <(echo one; echo two)
ls /nonexistent 2> /dev/null || echo none
xargs -n 2 echo <<< "a b c"
env -i A=b env
readlink /proc/self/exe > /dev/null && echo exe
