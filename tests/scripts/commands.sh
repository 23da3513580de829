# The commands an ordinary script is made of. Its output must be the same, byte for byte, on
# Linux and in the guest. It runs in an empty, writable directory, with busybox's applets as
# its commands, and mentions nothing that differs between machines: no times, process ids,
# devices or absolute paths.

section() { echo "== $1"; }

section 'words and expansions'
echo one two   three
printf '%s|%5d|%-5s|%x|%o|%c|\n' text 42 ab 255 8 z
name='a b'; echo "$name" ${#name} ${name%b} ${name#a} ${name:-none} ${unset:-default}
echo $((7 * 6)) $((1 << 20)) $((-7 / 2)) $((0x1f % 7)) $((3 > 2 && 1))
set -- x 'y z' w; echo $# "$2" "$*"; shift; echo "$@"
for i in 1 2 3; do echo -n "$i,"; done; echo
i=0; while [ $i -lt 3 ]; do i=$((i + 1)); [ $i = 2 ] && continue; echo "i=$i"; done
case abc in a*) echo starts with a;; *) echo no;; esac
f() { local v=inner; echo "f: $v $1"; return 3; }; f arg; echo "returned $?"
echo "substitution: $(echo nested $(echo deeper))" `echo backquotes`
IFS=:; for w in a:b:c; do echo "[$w]"; done; unset IFS
eval 'echo evaluated $((1+1))'
(cd /; exit 5); echo "subshell $?"
false || echo or; true && echo and; ! false; echo $?
test -e nothing; echo "test $?"; [ abc \< abd ] && echo ordered

section 'here-documents'
cat <<EOF
value: $name
sum: $((1 + 2))
EOF
cat <<'EOF' | tr a-z A-Z
quoted $name `not run`
EOF
cat <<-EOF
	tab removed
EOF

section 'files'
echo first > file; echo second >> file; cat file
cp file copy; cmp file copy && echo same; mv copy moved; ls
ln -s file link; readlink link; cat link; ln file hard; stat -c '%h %s %F' file link
echo changed > link; cat hard; rm hard; stat -c %h file
mkdir -p dir/sub/deep; touch dir/a dir/sub/b dir/sub/deep/c
find dir | sort; find dir -type f -name '[ab]' | sort
rmdir dir 2>/dev/null || echo 'not empty'
chmod 640 file; stat -c '%a' file; chmod u+x,g-r file; stat -c '%A' file
umask 077; touch private; stat -c %a private; umask 022
rm -r dir; ls -1; [ -L link ] && echo 'a link'; [ -d . ] && echo 'a directory'
echo -n 12345 > size; wc -c < size; truncate -s 3 size; cat size; echo
truncate -s 10000 size; wc -c < size; tail -c 2 size | od -An -tx1
touch -d '2001-02-03 04:05:06' stamped; stat -c %Y stamped; date -u -r stamped +%Y-%m-%d
mkdir tree; (cd tree && mkdir x y && echo 1 > x/1 && echo 2 > y/2); cp -r tree tree2
diff -r tree tree2 && echo 'trees equal'; echo 3 > tree2/x/1; diff -r tree tree2
cd tree; pwd | sed 's,.*/,,'; cd ..; basename some/path.txt .txt; dirname some/path.txt

section 'redirections'
{ echo out; echo err >&2; } 2> errors > output; cat output; cat errors
{ echo both; echo two >&2; } > output 2>&1; sort output
exec 3> three; echo 'on three' >&3; exec 3>&-; cat three
exec 4< three; read line <&4; echo "read: $line"; exec 4<&-
cat < missing 2>/dev/null || echo 'no input'
echo overwritten > three; cat three; echo x 2>&1 1>/dev/null | wc -c
while read a b; do echo "$b-$a"; done <<EOF
1 one
2 two words
EOF
set -C; echo no > three 2>/dev/null || echo refused; set +C

section 'pipes'
seq 1 10 | grep -v 5 | tail -n 3
seq 1 100 | awk '{ s += $1 } END { print s, NR }'
yes line | head -n 4 | uniq -c | sed 's/^ *//'
echo hello | tee copy1 copy2 | cat; cat copy1 copy2
seq 1 20000 | wc -l; seq 1 20000 | md5sum
seq 100 | shuf | sort -n | head -n 2
(echo a; sleep 0.1; echo b) | cat
true | false; echo "pipe status $?"
echo data | { read v; echo "got $v"; }
seq 3 | xargs echo args; seq 4 | xargs -n 2 echo pair

section 'text'
printf 'b 2\na 10\nc 1\na 9\n' > table
sort table; sort -k2n table; sort -r table | uniq -w 1 2>/dev/null || sort -u table
cut -d' ' -f2 table; cut -c1 table | tr '\n' '+'; echo
grep -n a table; grep -c . table; grep -E '^(b|c) [12]$' table; grep -q zzz table; echo "grep $?"
sed -n '2,3p' table; sed 's/\([a-z]\) \([0-9]*\)/\2 \1/;/^1 /d' table; sed '$!d' table
awk '{ n[$1] += $2 } END { for (k in n) print k, n[k] | "sort" }' table
awk -F: 'BEGIN { OFS = "-" } { $1 = $1; print toupper($0), length($0), substr($2, 2) }' <<EOF
one:two:three
four:five:six
EOF
awk 'BEGIN { printf "%.3f %5.1e %s\n", 22 / 7, 123456, sprintf("%03d", 7) }'
head -n 1 table; tail -n 1 table; tail -n +3 table; rev table; tac table | nl
paste table table | expand | head -n 1; fold -w 3 table | head -n 2
tr -d 0-9 < table | tr -s a; od -c table | head -n 2; hexdump -C table | tail -n 2
echo 'a,b' | awk -F, '{ print $2 }'
expr 3 + 4; expr length word; expr substr abcdef 2 3; echo '2 3 + p' | dc
dd if=table of=part bs=1 skip=4 count=4 2>/dev/null; cat part | od -An -c
printf 'x%.0s' 1 2 3; echo; strings -n 4 table | wc -l

section 'archives and sums'
tar -cf tree.tar tree; tar -tf tree.tar | sort; mkdir out; tar -xf tree.tar -C out; cat out/tree/y/2
gzip -c table | gunzip | cmp - table && echo 'gzip round trip'
tar -czf tree.tgz tree && tar -tzf tree.tgz | wc -l
bzip2 -c table | bunzip2 | md5sum; md5sum table; sha1sum < table; sha256sum table; sha512sum table | cut -c1-20
echo text | base64 | tee b64; base64 -d b64; uuencode x < table | uudecode -o - | cmp - table && echo uu
cpio -o -H newc < /dev/null 2>/dev/null | wc -c

section 'processes'
sleep 0.05 & wait $!; echo "background $?"
(exit 7) & wait $!; echo "status $?"
for n in 1 2 3; do (echo "job $n" > job$n; exit $n) & done; wait; cat job1 job2 job3
sh -c 'kill -TERM $$'; echo "killed $?"
sh -c 'kill -KILL $$' 2>/dev/null; echo "killed $?"
trap 'echo trapped USR1' USR1; kill -USR1 $$; trap - USR1
trap 'echo leaving' EXIT; (trap 'echo subshell leaving' EXIT); trap - EXIT
sleep 10 & p=$!; kill $p; wait $p 2>/dev/null; echo "sleeper $?"
sh -c 'exit 42'; echo $?; nosuchcommand 2>/dev/null; echo $?; ./table 2>/dev/null; echo $?
timeout 0.2 sleep 5; echo "timeout $?"
sh -c 'echo $0 $1 $#' zero one two; env -i A=1 B=2 env | sort; A=5 sh -c 'echo $A'
x=$(for i in 1 2 3; do echo $i; done | while read i; do echo $((i * i)); done); echo $x
seq 50 | while read i; do /bin/true 2>/dev/null || true; echo $i; done | tail -n 1
time -f '' true 2>/dev/null; setsid sh -c 'echo session'; nproc >/dev/null || true
printf '#!/bin/false\necho ran by the shell\n' | sed 1d > plain; sh ./plain; . ./plain
mkfifo pipe; (echo through a fifo > pipe) & cat pipe; wait; [ -p pipe ] && echo 'a fifo'
test -t 0 || echo 'no terminal'; echo "$(</dev/null cat; echo $?)"
head -c 3 /dev/zero | od -An -tx1; echo gone > /dev/null
head -c 16 /dev/urandom | wc -c; echo full 2>/dev/null > /dev/full || echo 'write error'
ls | wc -l; rm -rf ./*; ls -A | wc -l
echo done
