; Running a phase on rows: chunk by chunk, in and out of buffers that its `main` works on. See `batched`, which puts
; numbers for what begins with $: the float type, a vector of it that fills 64 bytes, how many that holds, and the bytes
; and the alignment of an element.

declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

declare void @llvm.prefetch.p0(ptr, i32, i32, i32)

; Ask for n elements that will be read.
define internal void @prefetch(ptr %from, i64 %n) {
  %few = icmp slt i64 %n, $WIDTH
  br i1 %few, label %done, label %line
line:
  %i = phi i64 [0, %0], [%i.1, %line]
  %at = getelementptr $FLOAT, ptr %from, i64 %i
  call void @llvm.prefetch.p0(ptr %at, i32 0, i32 2, i32 1)
  %i.1 = add i64 %i, $WIDTH
  %more = icmp slt i64 %i.1, %n
  br i1 %more, label %line, label %done
done:
  ret void
}

; n elements to where nobody will read them soon: past the cache, which would first read what stood there. 64 divides
; the address.
define internal void @stream(ptr %to, ptr %from, i64 %n) {
  %whole = and i64 %n, -$WIDTH
  br label %vectors
vectors:
  %v = phi i64 [0, %0], [%v.1, %vector]
  %more.vectors = icmp slt i64 %v, %whole
  br i1 %more.vectors, label %vector, label %singles
vector:
  %v.to = getelementptr $FLOAT, ptr %to, i64 %v
  %v.from = getelementptr $FLOAT, ptr %from, i64 %v
  %a = load $VECTOR, ptr %v.from, align $BYTES
  store $VECTOR %a, ptr %v.to, align 64, !nontemporal !0
  %v.1 = add i64 %v, $WIDTH
  br label %vectors
singles:
  %k = phi i64 [%whole, %vectors], [%k.1, %single]
  %more = icmp slt i64 %k, %n
  br i1 %more, label %single, label %done
single:
  %k.to = getelementptr $FLOAT, ptr %to, i64 %k
  %k.from = getelementptr $FLOAT, ptr %from, i64 %k
  %c = load $FLOAT, ptr %k.from
  store $FLOAT %c, ptr %k.to
  %k.1 = add i64 %k, 1
  br label %singles
done:
  ret void
}

; rows x columns elements, from one place with strides to another; strides in elements.
define internal void @copy(ptr %to, i64 %to.row, i64 %to.column, ptr %from, i64 %from.row, i64 %from.column,
                           i64 %rows, i64 %columns) {
  %to.dense = icmp eq i64 %to.row, 1
  %from.dense = icmp eq i64 %from.row, 1
  %side.by.side = and i1 %to.dense, %from.dense
  br i1 %side.by.side, label %by.column, label %columns.too
columns.too:
  %to.flat = icmp eq i64 %to.column, 1
  %from.flat = icmp eq i64 %from.column, 1
  %in.rows = and i1 %to.flat, %from.flat
  br i1 %in.rows, label %whole.rows, label %one.by.one
whole.rows: ; and perhaps the rows, too
  %to.packed = icmp eq i64 %to.row, %columns
  %from.packed = icmp eq i64 %from.row, %columns
  %all = and i1 %to.packed, %from.packed
  br i1 %all, label %at.once, label %by.row
at.once:
  %elements = mul i64 %rows, %columns
  %all.bytes = mul i64 %elements, $BYTES
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %all.bytes, i1 false)
  ret void

by.column: ; the rows of a column lie side by side
  %bytes = mul i64 %rows, $BYTES
  br label %column
column:
  %c = phi i64 [0, %by.column], [%c.1, %copy.column]
  %more.columns = icmp slt i64 %c, %columns
  br i1 %more.columns, label %copy.column, label %done
copy.column:
  %c.to = mul i64 %c, %to.column
  %c.from = mul i64 %c, %from.column
  %column.to = getelementptr $FLOAT, ptr %to, i64 %c.to
  %column.from = getelementptr $FLOAT, ptr %from, i64 %c.from
  call void @llvm.memcpy.p0.p0.i64(ptr %column.to, ptr %column.from, i64 %bytes, i1 false)
  %c.1 = add i64 %c, 1
  br label %column

by.row: ; the columns of a row do
  %row.bytes = mul i64 %columns, $BYTES
  br label %row
row:
  %r = phi i64 [0, %by.row], [%r.1, %copy.row]
  %more.rows = icmp slt i64 %r, %rows
  br i1 %more.rows, label %copy.row, label %done
copy.row:
  %r.to = mul i64 %r, %to.row
  %r.from = mul i64 %r, %from.row
  %row.to = getelementptr $FLOAT, ptr %to, i64 %r.to
  %row.from = getelementptr $FLOAT, ptr %from, i64 %r.from
  call void @llvm.memcpy.p0.p0.i64(ptr %row.to, ptr %row.from, i64 %row.bytes, i1 false)
  %r.1 = add i64 %r, 1
  br label %row

one.by.one:
  br label %outer
outer:
  %i = phi i64 [0, %one.by.one], [%i.1, %outer.next]
  %more.outer = icmp slt i64 %i, %rows
  br i1 %more.outer, label %outer.begin, label %done
outer.begin:
  %i.to = mul i64 %i, %to.row
  %i.from = mul i64 %i, %from.row
  %outer.to = getelementptr $FLOAT, ptr %to, i64 %i.to
  %outer.from = getelementptr $FLOAT, ptr %from, i64 %i.from
  br label %inner
inner:
  %j = phi i64 [0, %outer.begin], [%j.1, %element]
  %more.inner = icmp slt i64 %j, %columns
  br i1 %more.inner, label %element, label %outer.next
element:
  %j.to = mul i64 %j, %to.column
  %j.from = mul i64 %j, %from.column
  %element.to = getelementptr $FLOAT, ptr %outer.to, i64 %j.to
  %element.from = getelementptr $FLOAT, ptr %outer.from, i64 %j.from
  %x = load $FLOAT, ptr %element.from
  store $FLOAT %x, ptr %element.to
  %j.1 = add i64 %j, 1
  br label %inner
outer.next:
  %i.1 = add i64 %i, 1
  br label %outer

done:
  ret void
}

; to[k] += from[k]
define void @accumulate(ptr %to, ptr %from, i64 %n) {
  %whole = and i64 %n, -$WIDTH
  br label %vectors
vectors:
  %v = phi i64 [0, %0], [%v.1, %vector]
  %more.vectors = icmp slt i64 %v, %whole
  br i1 %more.vectors, label %vector, label %singles
vector:
  %v.to = getelementptr $FLOAT, ptr %to, i64 %v
  %v.from = getelementptr $FLOAT, ptr %from, i64 %v
  %a = load $VECTOR, ptr %v.to, align $BYTES
  %b = load $VECTOR, ptr %v.from, align $BYTES
  %ab = fadd $VECTOR %a, %b
  store $VECTOR %ab, ptr %v.to, align $BYTES
  %v.1 = add i64 %v, $WIDTH
  br label %vectors
singles:
  %k = phi i64 [%whole, %vectors], [%k.1, %single]
  %more = icmp slt i64 %k, %n
  br i1 %more, label %single, label %done
single:
  %k.to = getelementptr $FLOAT, ptr %to, i64 %k
  %k.from = getelementptr $FLOAT, ptr %from, i64 %k
  %c = load $FLOAT, ptr %k.to
  %d = load $FLOAT, ptr %k.from
  %cd = fadd $FLOAT %c, %d
  store $FLOAT %cd, ptr %k.to
  %k.1 = add i64 %k, 1
  br label %singles
done:
  ret void
}

declare $VECTOR @$FLOORS($VECTOR)

declare $FLOAT @$FLOOR($FLOAT)

; The first of n elements that is no index of so many things, to `wrong`, if there is one and none is there yet.
define internal void @check(ptr %wrong, i64 %length, ptr %from, i64 %n) {
  %before = load $FLOAT, ptr %wrong
  %none = fcmp oeq $FLOAT %before, 0.0
  br i1 %none, label %begin, label %done
begin:
  %end = sitofp i64 %length to $FLOAT
  %start = fneg $FLOAT %end
  %end.one = insertelement $VECTOR poison, $FLOAT %end, i64 0
  %ends = shufflevector $VECTOR %end.one, $VECTOR poison, <$WIDTH x i32> zeroinitializer
  %starts = fneg $VECTOR %ends
  br label %vectors
vectors:
  %v = phi i64 [0, %begin], [%v.1, %vector]
  %v.1 = add i64 %v, $WIDTH
  %more.vectors = icmp sle i64 %v.1, %n
  br i1 %more.vectors, label %vector, label %singles
vector:
  %v.from = getelementptr $FLOAT, ptr %from, i64 %v
  %a = load $VECTOR, ptr %v.from, align $BYTES
  %a.floor = call $VECTOR @$FLOORS($VECTOR %a)
  %a.whole = fcmp oeq $VECTOR %a, %a.floor
  %a.from = fcmp oge $VECTOR %a, %starts
  %a.to = fcmp olt $VECTOR %a, %ends
  %a.in = and <$WIDTH x i1> %a.from, %a.to
  %a.fits = and <$WIDTH x i1> %a.whole, %a.in
  %a.bits = bitcast <$WIDTH x i1> %a.fits to i$WIDTH
  %a.all = icmp eq i$WIDTH %a.bits, -1
  br i1 %a.all, label %vectors, label %singles
singles:
  %k = phi i64 [%v, %vectors], [%v, %vector], [%k.1, %fit]
  %more = icmp slt i64 %k, %n
  br i1 %more, label %single, label %done
single:
  %k.from = getelementptr $FLOAT, ptr %from, i64 %k
  %c = load $FLOAT, ptr %k.from
  %c.floor = call $FLOAT @$FLOOR($FLOAT %c)
  %c.whole = fcmp oeq $FLOAT %c, %c.floor
  %c.from = fcmp oge $FLOAT %c, %start
  %c.to = fcmp olt $FLOAT %c, %end
  %c.in = and i1 %c.from, %c.to
  %c.fits = and i1 %c.whole, %c.in
  br i1 %c.fits, label %fit, label %found
fit:
  %k.1 = add i64 %k, 1
  br label %singles
found:
  store $FLOAT %c, ptr %wrong
  br label %done
done:
  ret void
}

; The rows from `first` to `last` of a Pass, for which main finds numbers in w and a. x, y and t are buffers for one
; chunk; the first chunk has its y in `sums`, where those of all chunks are added up. What every row returns goes to its
; place, which is an address if `base` is 0.
define void @run(ptr %pass, i64 %first, i64 %last, ptr %x, ptr %y, ptr %t, ptr %sums, ptr %w, ptr %a, i64 %base) {
  %main = get ptr %pass.main
  %chunk = get i64 %pass.chunk
  %inputs = get ptr %pass.inputs
  %inputs.end = get ptr %pass.inputs_end
  %outputs = get ptr %pass.outputs
  %outputs.end = get ptr %pass.outputs_end
  %sums.at = get i64 %pass.sums_at
  %sums.count = get i64 %pass.sums
  %mask.at = get i64 %pass.mask_at
  %mask.stride = get i64 %pass.mask_stride
  %has.mask = icmp ne i64 %mask.stride, 0
  %first.sums = getelementptr $FLOAT, ptr %sums, i64 %sums.at
  %more.sums = getelementptr $FLOAT, ptr %y, i64 %sums.at
  br label %next
next:
  %row = phi i64 [%first, %0], [%row.1, %outputs.done]
  %more = icmp slt i64 %row, %last
  br i1 %more, label %begin, label %done
begin:
  %left = sub i64 %last, %row
  %is.last = icmp slt i64 %left, %chunk
  %n = select i1 %is.last, i64 %left, i64 %chunk
  br label %input
input:
  %in = phi ptr [%inputs, %begin], [%in.1, %padded]
  %no.more.inputs = icmp eq ptr %in, %inputs.end
  br i1 %no.more.inputs, label %mask, label %copy.in
copy.in:
  %in.slot = get ptr %in.array
  %in.array = load ptr, ptr %in.slot
  %in.columns = get i64 %in.columns
  %in.at = get i64 %in.at
  %in.row = get i64 %in.row
  %in.column = get i64 %in.column
  %in.offset = mul i64 %row, %in.columns
  %in.from = getelementptr $FLOAT, ptr %in.array, i64 %in.offset
  %in.to = getelementptr $FLOAT, ptr %x, i64 %in.at
  call void @copy(ptr %in.to, i64 %in.row, i64 %in.column, ptr %in.from, i64 %in.columns, i64 1, i64 %n, i64 %in.columns)
  %in.elements = mul i64 %n, %in.columns
  %in.ahead = getelementptr $FLOAT, ptr %in.from, i64 %in.elements
  call void @prefetch(ptr %in.ahead, i64 %in.elements)
  %in.last = sub i64 %n, 1
  %in.last.offset = mul i64 %in.last, %in.columns
  %in.last.from = getelementptr $FLOAT, ptr %in.from, i64 %in.last.offset
  %in.pad.offset = mul i64 %n, %in.row
  %in.pad.to = getelementptr $FLOAT, ptr %in.to, i64 %in.pad.offset
  %in.pad = sub i64 %chunk, %n
  %is.whole = icmp eq i64 %in.pad, 0
  br i1 %is.whole, label %padded, label %pad
pad: ; the rest are the last row again
  call void @copy(ptr %in.pad.to, i64 %in.row, i64 %in.column, ptr %in.last.from, i64 0, i64 1, i64 %in.pad, i64 %in.columns)
  br label %padded
padded:
  %in.1 = getelementptr i8, ptr %in, i64 $COLUMNS
  br label %input
mask:
  br i1 %has.mask, label %mask.next, label %work
mask.next:
  %m = phi i64 [0, %mask], [%m.1, %mask.set]
  %more.mask = icmp slt i64 %m, %chunk
  br i1 %more.mask, label %mask.set, label %work
mask.set:
  %m.step = mul i64 %m, %mask.stride
  %m.at = add i64 %m.step, %mask.at
  %m.to = getelementptr $FLOAT, ptr %x, i64 %m.at
  %there = icmp slt i64 %m, %n
  %truth = uitofp i1 %there to $FLOAT
  store $FLOAT %truth, ptr %m.to
  %m.1 = add i64 %m, 1
  br label %mask.next
work:
  %is.first = icmp eq i64 %row, %first
  %out.y = select i1 %is.first, ptr %sums, ptr %y
  call void %main(ptr %x, ptr %w, ptr %out.y, ptr %t, ptr %a)
  br i1 %is.first, label %output, label %add
add:
  call void @accumulate(ptr %first.sums, ptr %more.sums, i64 %sums.count)
  br label %output
output:
  %out = phi ptr [%outputs, %work], [%outputs, %add], [%out.1, %copied.out]
  %no.more.outputs = icmp eq ptr %out, %outputs.end
  br i1 %no.more.outputs, label %outputs.done, label %copy.out
copy.out:
  %out.length = get i64 %out.length
  %out.at = get i64 %out.at
  %out.from = getelementptr $FLOAT, ptr %out.y, i64 %out.at
  %out.is.index = icmp ne i64 %out.length, 0
  br i1 %out.is.index, label %checked, label %kept
checked:
  %out.wrong = getelementptr i8, ptr %out, i64 $WRONG
  call void @check(ptr %out.wrong, i64 %out.length, ptr %out.from, i64 %n)
  br label %copied.out
kept:
  %out.place.of = get i64 %out.array
  %out.word = add i64 %base, %out.place.of
  %out.array = inttoptr i64 %out.word to ptr
  %out.columns = get i64 %out.columns
  %out.offset = mul i64 %row, %out.columns
  %out.to = getelementptr $FLOAT, ptr %out.array, i64 %out.offset
  %out.streamed = get i64 %out.streamed
  %out.past = icmp ne i64 %out.streamed, 0
  %out.single = icmp eq i64 %out.columns, 1
  %out.place = ptrtoint ptr %out.to to i64
  %out.beyond = and i64 %out.place, 63
  %out.aligned = icmp eq i64 %out.beyond, 0
  %out.fits = and i1 %out.single, %out.aligned
  %out.streams = and i1 %out.past, %out.fits
  br i1 %out.streams, label %streamed, label %copied
streamed:
  call void @stream(ptr %out.to, ptr %out.from, i64 %n)
  br label %copied.out
copied:
  call void @copy(ptr %out.to, i64 %out.columns, i64 1, ptr %out.from, i64 1, i64 %chunk, i64 %n, i64 %out.columns)
  br label %copied.out
copied.out:
  %out.1 = getelementptr i8, ptr %out, i64 $COLUMNS
  br label %output
outputs.done:
  %row.1 = add i64 %row, %chunk
  br label %next
done:
  ret void
}

; The main of a program of phases: x begins with the inputs that are no row's, behind which the phases leave what the
; later ones need; y is the last one's. t is large enough for each of them.
define void @phases(ptr %x, ptr %w, ptr %y, ptr %t, ptr %phases) {
  %counts = get ptr %phases.counts
  %counts.end = get ptr %phases.counts_end
  %passes = get ptr %phases.passes
  %passes.end = get ptr %phases.passes_end
  br label %next.count
next.count: ; the numbers of rows are inputs, too
  %count = phi ptr [%counts, %0], [%count.1, %copy.count]
  %no.more.counts = icmp eq ptr %count, %counts.end
  br i1 %no.more.counts, label %phase, label %copy.count
copy.count:
  %count.rows = get ptr %count.rows
  %count.place = get i64 %count.place
  %n = load i64, ptr %count.rows
  %number = sitofp i64 %n to $FLOAT
  %number.to = getelementptr $FLOAT, ptr %x, i64 %count.place
  store $FLOAT %number, ptr %number.to
  %count.1 = getelementptr i8, ptr %count, i64 $COUNT
  br label %next.count
phase:
  %pass = phi ptr [%passes, %next.count], [%pass.1, %after]
  %no.more = icmp eq ptr %pass, %passes.end
  br i1 %no.more, label %done, label %which
which:
  %rows.at = get ptr %pass.rows
  %place = get i64 %pass.place
  %in.x = getelementptr $FLOAT, ptr %x, i64 %place
  %once = icmp eq ptr %rows.at, null
  br i1 %once, label %run.once, label %run.rows
run.once:
  %main = get ptr %pass.main
  %is.last = icmp slt i64 %place, 0
  %to = select i1 %is.last, ptr %y, ptr %in.x
  call void %main(ptr %x, ptr %w, ptr %to, ptr %t, ptr null)
  br label %after
run.rows:
  %rows = load i64, ptr %rows.at
  %x.at = get i64 %pass.x
  %y.at = get i64 %pass.y
  %t.at = get i64 %pass.t
  %pass.x = getelementptr i8, ptr %t, i64 %x.at
  %pass.y = getelementptr i8, ptr %t, i64 %y.at
  %pass.t = getelementptr i8, ptr %t, i64 %t.at
  %base = ptrtoint ptr %t to i64
  call void @run(ptr %pass, i64 0, i64 %rows, ptr %pass.x, ptr %pass.y, ptr %pass.t, ptr %in.x, ptr %w, ptr %x,
                 i64 %base)
  %found.at = get i64 %pass.found
  %found = getelementptr i8, ptr %t, i64 %found.at
  store i64 %rows, ptr %found
  %outs = get ptr %pass.outputs
  %outs.end = get ptr %pass.outputs_end
  br label %look
look: ; whether all that must be indices are
  %out = phi ptr [%outs, %run.rows], [%out.1, %looked]
  %no.more.outs = icmp eq ptr %out, %outs.end
  br i1 %no.more.outs, label %after, label %look.at
look.at:
  %out.1 = getelementptr i8, ptr %out, i64 $COLUMNS
  %wrong.at = getelementptr i8, ptr %out, i64 $WRONG
  %length = get i64 %out.length
  %no.index = icmp eq i64 %length, 0
  br i1 %no.index, label %looked, label %index
index:
  %wrong = load $FLOAT, ptr %wrong.at
  %right = fcmp oeq $FLOAT %wrong, 0.0
  br i1 %right, label %looked, label %misfit
misfit:
  store $FLOAT 0.0, ptr %wrong.at
  put i64 1, %phases.wrong
  br label %looked
looked:
  br label %look
after:
  %pass.1 = getelementptr i8, ptr %pass, i64 $PASS
  br label %phase
done:
  ret void
}

!0 = !{i32 1}
