; What is done row by row, for `rowwise`, which puts a few instructions for each `get` and `put`, of an element of one of
; the arrays that %t points to, and numbers for what begins with $.

; Mark what the marked rows are made of: rows from before `last` down to `first` are looked at.
define i64 @mark(ptr %t, i64 %first, i64 %last, i64 %0) {
begin:
  br label %check
check:
  %i.1 = phi i64 [%last, %begin], [%i, %done]
  %more = icmp sgt i64 %i.1, %first
  br i1 %more, label %row, label %end
row:
  %i = sub i64 %i.1, 1
  %marked = get mark[%i]
  %is.marked = icmp ne i64 %marked, 0
  br i1 %is.marked, label %operands, label %done
operands:
  %begin.edges = get start[%i]
  %end.edges = get start[%i.1]
  br label %edges
edges:
  %e = phi i64 [%begin.edges, %operands], [%e.1, %edge]
  %more.edges = icmp slt i64 %e, %end.edges
  br i1 %more.edges, label %edge, label %done
edge:
  %operand = get operand[%e]
  put mark[%operand] = 1
  %e.1 = add i64 %e, 1
  br label %edges
done:
  br label %check
end:
  ret i64 0
}

; The rest numbers what looks alike: see `consing`.

; The class of an operand.
define internal i64 @operand(ptr %t, i64 %edge) {
  %slot = get operand[%edge]
  %c = get class[%slot]
  ret i64 %c
}

define internal i64 @mixed(i64 %x) {
  %a = lshr i64 %x, 31
  %b = xor i64 %x, %a
  %c = mul i64 %b, -7046029254386353131
  %d = lshr i64 %c, 29
  %e = xor i64 %c, %d
  %f = mul i64 %e, -4658895280553007687
  %g = lshr i64 %f, 32
  %h = xor i64 %f, %g
  ret i64 %h
}

; Write the classes of these operands to the key from `at` on: in their order. Its end.
define internal i64 @in_order(ptr %t, i64 %first, i64 %last, i64 %at) {
  br label %check
check:
  %e = phi i64 [%first, %0], [%e.1, %next]
  %k = phi i64 [%at, %0], [%k.1, %next]
  %more = icmp slt i64 %e, %last
  br i1 %more, label %next, label %done
next:
  %c = call i64 @operand(ptr %t, i64 %e)
  put key[%k] = %c
  %e.1 = add i64 %e, 1
  %k.1 = add i64 %k, 1
  br label %check
done:
  ret i64 %k
}

; The same for two operands, the smaller class first.
define internal i64 @commuted(ptr %t, i64 %first, i64 %at) {
  %second = add i64 %first, 1
  %a = call i64 @operand(ptr %t, i64 %first)
  %b = call i64 @operand(ptr %t, i64 %second)
  %least = call i64 @llvm.smin.i64(i64 %a, i64 %b)
  %most = call i64 @llvm.smax.i64(i64 %a, i64 %b)
  %at.1 = add i64 %at, 1
  put key[%at] = %least
  put key[%at.1] = %most
  %end = add i64 %at, 2
  ret i64 %end
}

; The same as a set, whose members get a stamp.
define internal i64 @as_set(ptr %t, i64 %first, i64 %last, i64 %at, i64 %stamp) {
  br label %check
check:
  %e = phi i64 [%first, %0], [%e.1, %next]
  %k = phi i64 [%at, %0], [%k.1, %next]
  %more = icmp slt i64 %e, %last
  br i1 %more, label %look, label %done
look:
  %c = call i64 @operand(ptr %t, i64 %e)
  %known = get stamp[%c]
  %is.known = icmp eq i64 %known, %stamp
  br i1 %is.known, label %next, label %new
new:
  put stamp[%c] = %stamp
  put key[%k] = %c
  %k.new = add i64 %k, 1
  br label %next
next:
  %k.1 = phi i64 [%k, %look], [%k.new, %new]
  %e.1 = add i64 %e, 1
  br label %check
done:
  ret i64 %k
}

; Keep of a set what tells: the classes that are deep, if there are any, else those that are no leaves, if there are any,
; else all; they get the next stamp. Its end.
define internal i64 @telling(ptr %t, i64 %at, i64 %end, i64 %stamp, i1 %all) {
  br i1 %all, label %filter, label %check
check:
  %k = phi i64 [%at, %0], [%k.1, %look]
  %deepest = phi i64 [0, %0], [%deepest.1, %look]
  %inner = phi i64 [0, %0], [%inner.1, %look]
  %more = icmp slt i64 %k, %end
  br i1 %more, label %look, label %found
look:
  %c = get key[%k]
  %depth = get depth[%c]
  %deepest.1 = call i64 @llvm.smax.i64(i64 %deepest, i64 %depth)
  %inner.1 = call i64 @llvm.smax.i64(i64 %inner, i64 %c)
  %k.1 = add i64 %k, 1
  br label %check
found:
  %is.deep = icmp sgt i64 %deepest, $SHALLOW
  %has.inner = icmp sgt i64 %inner, $INPUT
  %least.class = select i1 %has.inner, i64 $INPUT, i64 -1
  %least.depth = select i1 %is.deep, i64 $SHALLOW, i64 -1
  br label %filter
filter:
  %above = phi i64 [-1, %0], [%least.class, %found]
  %below = phi i64 [-1, %0], [%least.depth, %found]
  %next.stamp = add i64 %stamp, 1
  br label %filter.check
filter.check:
  %from = phi i64 [%at, %filter], [%from.1, %filter.next]
  %to = phi i64 [%at, %filter], [%to.1, %filter.next]
  %filter.more = icmp slt i64 %from, %end
  br i1 %filter.more, label %filter.look, label %done
filter.look:
  %d = get key[%from]
  %d.depth = get depth[%d]
  %deep.enough = icmp sgt i64 %d.depth, %below
  %inner.enough = icmp sgt i64 %d, %above
  %keep = and i1 %deep.enough, %inner.enough
  br i1 %keep, label %kept, label %filter.next
kept:
  put stamp[%d] = %next.stamp
  put key[%to] = %d
  %to.kept = add i64 %to, 1
  br label %filter.next
filter.next:
  %to.1 = phi i64 [%to, %filter.look], [%to.kept, %kept]
  %from.1 = add i64 %from, 1
  br label %filter.check
done:
  ret i64 %to
}

; A hash of a key; that of a set does not depend on the order.
define internal i64 @hash(ptr %t, i64 %at, i64 %end, i64 %tag, i1 %set) {
  %begin = call i64 @mixed(i64 %tag)
  br label %check
check:
  %k = phi i64 [%at, %0], [%k.1, %next]
  %h = phi i64 [%begin, %0], [%h.1, %next]
  %more = icmp slt i64 %k, %end
  br i1 %more, label %next, label %done
next:
  %c = get key[%k]
  %place = select i1 %set, i64 0, i64 %h
  %salted = add i64 %c, 1
  %x = xor i64 %salted, %place
  %m = call i64 @mixed(i64 %x)
  %sum = add i64 %h, %m
  %h.1 = select i1 %set, i64 %sum, i64 %m
  %k.1 = add i64 %k, 1
  br label %check
done:
  %result = call i64 @mixed(i64 %h)
  ret i64 %result
}

; Whether the key from `at` to `end` is that of a class: the same numbers in the same order or, of a set, all with the stamp.
define internal i1 @same(ptr %t, i64 %c, i64 %at, i64 %end, i64 %stamp, i1 %set) {
  %c.1 = add i64 %c, 1
  %first = get begin[%c]
  %last = get begin[%c.1]
  %length = sub i64 %end, %at
  %theirs = sub i64 %last, %first
  %as.long = icmp eq i64 %length, %theirs
  br i1 %as.long, label %check, label %no
check:
  %k = phi i64 [0, %0], [%k.1, %next]
  %more = icmp slt i64 %k, %length
  br i1 %more, label %look, label %yes
look:
  %k.theirs = add i64 %first, %k
  %x = get key[%k.theirs]
  br i1 %set, label %member, label %number
member:
  %stamped = get stamp[%x]
  %is.in = icmp eq i64 %stamped, %stamp
  br i1 %is.in, label %next, label %no
number:
  %k.ours = add i64 %at, %k
  %y = get key[%k.ours]
  %equal = icmp eq i64 %x, %y
  br i1 %equal, label %next, label %no
next:
  %k.1 = add i64 %k, 1
  br label %check
yes:
  ret i1 true
no:
  ret i1 false
}

; How many operations, one inside the other, a row takes.
define internal i64 @depth(ptr %t, i64 %first, i64 %last) {
  br label %check
check:
  %e = phi i64 [%first, %0], [%e.1, %next]
  %deepest = phi i64 [0, %0], [%deepest.1, %next]
  %more = icmp slt i64 %e, %last
  br i1 %more, label %next, label %done
next:
  %c = call i64 @operand(ptr %t, i64 %e)
  %depth = get depth[%c]
  %deepest.1 = call i64 @llvm.smax.i64(i64 %deepest, i64 %depth)
  %e.1 = add i64 %e, 1
  br label %check
done:
  %own = add i64 %deepest, 1
  ret i64 %own
}

; Put the class of each of n rows into its slot; there are `classes` classes already. How many there are then. The table
; has a power of 2 of places, `mask` is one less.
define i64 @number(ptr %t, i64 %n, i64 %classes, i64 %mask) {
  br label %check
check:
  %r = phi i64 [0, %0], [%r.1, %known]
  %many = phi i64 [%classes, %0], [%many.1, %known]
  %more = icmp slt i64 %r, %n
  br i1 %more, label %row, label %done
row:
  %i = get row[%r]
  %i.1 = add i64 %i, 1
  %form = get form[%i]
  %op = get op[%i]
  %first = get start[%i]
  %last = get start[%i.1]
  %at = get begin[%many]
  %stamp = shl i64 %i.1, 1
  switch i64 %form, label %plain [i64 $COMMUTED, label %product
                                 i64 $POWER, label %power
                                 i64 $SET, label %set
                                 i64 $TOLD, label %set]
plain:
  %end.plain = call i64 @in_order(ptr %t, i64 %first, i64 %last, i64 %at)
  br label %hash
product:
  %end.product = call i64 @commuted(ptr %t, i64 %first, i64 %at)
  br label %hash
power:
  %base = call i64 @operand(ptr %t, i64 %first)
  %bits = get power[%i]
  %at.1 = add i64 %at, 1
  put key[%at] = %base
  put key[%at.1] = %bits
  %end.power = add i64 %at, 2
  br label %hash
set:
  %end.all = call i64 @as_set(ptr %t, i64 %first, i64 %last, i64 %at, i64 %stamp)
  %all = icmp eq i64 %form, $SET
  %end.set = call i64 @telling(ptr %t, i64 %at, i64 %end.all, i64 %stamp, i1 %all)
  br label %hash
hash:
  %end = phi i64 [%end.plain, %plain], [%end.product, %product], [%end.power, %power], [%end.set, %set]
  %is.set = phi i1 [false, %plain], [false, %product], [false, %power], [true, %set]
  %own.stamp = add i64 %stamp, 1
  %op.shifted = shl i64 %op, 8
  %tag = or i64 %op.shifted, %form
  %h = call i64 @hash(ptr %t, i64 %at, i64 %end, i64 %tag, i1 %is.set)
  br label %probe
probe:
  %turn = phi i64 [%h, %hash], [%turn.1, %other]
  %place = and i64 %turn, %mask
  %c = get table[%place]
  %empty = icmp eq i64 %c, 0
  br i1 %empty, label %new, label %compare
compare:
  %their.hash = get hash[%c]
  %same.hash = icmp eq i64 %their.hash, %h
  br i1 %same.hash, label %compare.tag, label %other
compare.tag:
  %their.tag = get tag[%c]
  %same.tag = icmp eq i64 %their.tag, %tag
  br i1 %same.tag, label %compare.keys, label %other
compare.keys:
  %is.same = call i1 @same(ptr %t, i64 %c, i64 %at, i64 %end, i64 %own.stamp, i1 %is.set)
  br i1 %is.same, label %known, label %other
other:
  %turn.1 = add i64 %turn, 1
  br label %probe
new:
  %many.new = add i64 %many, 1
  %depth = call i64 @depth(ptr %t, i64 %first, i64 %last)
  put tag[%many] = %tag
  put depth[%many] = %depth
  put begin[%many.new] = %end
  put hash[%many] = %h
  put table[%place] = %many
  br label %known
known:
  %many.1 = phi i64 [%many, %compare.keys], [%many.new, %new]
  %own = phi i64 [%c, %compare.keys], [%many, %new]
  %slot = get slot[%i]
  put class[%slot] = %own
  %r.1 = add i64 %r, 1
  br label %check
done:
  ret i64 %many
}

declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
