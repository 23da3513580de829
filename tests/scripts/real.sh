# Run by a dynamic bash, in an empty directory, in the guest and on the host.
run() { echo "== $1"; (eval "$2") 2>&1; echo "-> $?"; }

cat > fib.c <<'X'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
int main(int argc, char **argv) {
    char *text = malloc(100);
    sprintf(text, "tcc: %d %d %.3f %s", fib(20), argc, argc * 2.5, argv[argc - 1]);
    puts(text);
    return 3;
}
X
run tcc 'tcc -o fib fib.c && ./fib a b'
run tcc-run 'tcc -run fib.c x'
cat > a.c <<'X'
#include "a.h"
#include <stdio.h>
int main(void) { printf("%d %s\n", add(2, 3), name()); return 0; }
X
echo 'int add(int a, int b); const char *name(void);' > a.h
printf '#include "a.h"\nint add(int a, int b) { return a + b; }\n' > b.c
printf '#include "a.h"\nconst char *name(void) { return "c"; }\n' > c.c
printf 'OBJS = a.o b.o c.o\nprog: $(OBJS)\n\ttcc -o $@ $(OBJS)\n%%.o: %%.c a.h\n\ttcc -c $< -o $@\nclean:\n\trm -f *.o prog\n' > Makefile
run make 'make && ./prog'
run make-again 'make; sleep 1; touch b.c; make -j3 && ./prog; make clean; ls'

run perl 'perl -e "my %h; \$h{\$_ % 7} += \$_ for 1..1000; print join(\",\", map {\"\$_=\$h{\$_}\"} sort keys %h), \"\n\"; print \`echo sub\`; fork or exit 3; wait; print \$?>>8, \"\n\""'
echo "create table t(a int, b text); insert into t values(1,'x'),(2,'y'); select * from t order by a desc;" > s.sql
run sqlite3 'sqlite3 db < s.sql; sqlite3 db "insert into t values(3,4); select sum(a) from t; vacuum; pragma integrity_check;"'
run jq 'echo "{\"a\":[1,2,{\"b\":3}]}" | jq -c ".a[2].b, (.a|length), .a"'
seq 1 20000 > big
run xz 'xz -k big && xz -dc big.xz | cmp - big; xz -T2 -c big | xz -dc | sha256sum'
run gzip 'gzip -nk big && gzip -dc big.gz | cmp - big; gzip -dc big.gz | tail -n 1'
run tar 'mkdir -p d/e u; echo x > d/e/f; ln -s e/f d/l; tar cf d.tar d && tar tf d.tar | sort; tar xf d.tar -C u; ls -R u; tar czf d.tgz d && tar tzf d.tgz | wc -l; tar cJf d.txz d && tar tJf d.txz | wc -l'
printf 'a\nb\nc\n' > x; printf 'a\nB\nc\nd\n' > y
run diff 'diff x y; diff --label x --label y -u x y > p; cat p; patch x p && cmp x y'
echo 'define(sq,`eval($1*$1)'"'"')sq(12)' > m
run m4 'm4 m'
run bc 'echo "scale=30; 4*a(1); 2^200" | bc -l'
run openssl 'echo hi | openssl sha256; echo secret | openssl enc -aes-256-cbc -pbkdf2 -pass pass:x -S 0102030405060708 -a; openssl speed -seconds 1 -bytes 1024 sha256 2>&1 | grep -c "^sha256"'
run coreutils 'fold -w 3 <<< abcdefgh; base64 <<< hello; cksum big; paste x y; comm x y; join x y; tac y; factor 1234567; date -u -d @0; expr 3 + 4; dd if=big of=o bs=1k count=5 2>&1 | head -n 2; od -c y | head -n 2; md5sum big; basename /a/b'
run find 'find d -type f -exec grep -H x {} +; find . -name "b*" -size +10k | sort'
run awk 'gawk "BEGIN { while ((\"seq 5\" | getline l) > 0) s += l; print s; printf \"%.4f\n\", atan2(1, 1) * 4 }"; gawk "{ n[\$1 % 3]++ } END { for (i in n) print i, n[i] }" big | sort; sed -n "/^99/{s/9/x/g;p}" big | head -n 3; grep -c "^1.*9$" big'
run bash 'declare -A m; m[a]=1; for k in a; do echo $k=${m[$k]}; done; coproc cat; echo hey >&${COPROC[1]}; read -u ${COPROC[0]} l; echo $l; eval "exec ${COPROC[1]}>&-"; wait; mapfile -t L < y; echo ${#L[@]}; printf "%q\n" "a b"; set -o pipefail; false | cat; echo $?; (trap "echo bye" EXIT; exit 4); echo $?; sleep 0.1 & wait $!; echo $?'
