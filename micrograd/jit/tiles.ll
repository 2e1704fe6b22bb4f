; Running a pass on rows within rows: tile by tile, in and out of buffers that its `main` works on. See `tiled`, which
; puts numbers for what begins with $: the float type, a vector of it and how many that holds, the bytes of an element,
; and those of an In and an Out.

declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

; to[k] += from[k]
define internal void @accumulate(ptr %to, ptr %from, i64 %n) {
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

; For i < rows, c < numbers: a line of so many columns is added to another.
define internal void @add(ptr %to, i64 %to.i, i64 %to.c, ptr %from, i64 %from.i, i64 %from.c, i64 %rows, i64 %columns,
                          i64 %numbers) {
  br label %row
row:
  %i = phi i64 [0, %0], [%i.1, %row.next]
  %more.rows = icmp slt i64 %i, %rows
  br i1 %more.rows, label %row.begin, label %done
row.begin:
  %i.to = mul i64 %i, %to.i
  %i.from = mul i64 %i, %from.i
  %row.to = getelementptr $FLOAT, ptr %to, i64 %i.to
  %row.from = getelementptr $FLOAT, ptr %from, i64 %i.from
  br label %number
number:
  %c = phi i64 [0, %row.begin], [%c.1, %line]
  %more.numbers = icmp slt i64 %c, %numbers
  br i1 %more.numbers, label %line, label %row.next
line:
  %c.to = mul i64 %c, %to.c
  %c.from = mul i64 %c, %from.c
  %line.to = getelementptr $FLOAT, ptr %row.to, i64 %c.to
  %line.from = getelementptr $FLOAT, ptr %row.from, i64 %c.from
  call void @accumulate(ptr %line.to, ptr %line.from, i64 %columns)
  %c.1 = add i64 %c, 1
  br label %number
row.next:
  %i.1 = add i64 %i, 1
  br label %row
done:
  ret void
}

; For i < rows, j < columns, c < numbers: to[...] = from[...]. Strides in elements; of what comes
; from behind `last.i` and `last.j`, there is that at these again.
define internal void @move(ptr %to, i64 %to.i, i64 %to.j, i64 %to.c, ptr %from, i64 %from.i, i64 %from.j, i64 %from.c,
                           i64 %rows, i64 %columns, i64 %numbers, i64 %last.i, i64 %last.j) {
  %bytes = mul i64 %columns, $BYTES
  %is.single = icmp eq i64 %numbers, 1
  %to.dense = icmp eq i64 %to.j, 1
  %from.dense = icmp eq i64 %from.j, 1
  %last.line = sub i64 %columns, 1
  %is.whole = icmp sle i64 %last.line, %last.j
  %dense = and i1 %to.dense, %from.dense
  %whole = and i1 %is.single, %is.whole
  %by.line = and i1 %dense, %whole
  br label %row
row:
  %i = phi i64 [0, %0], [%i.1, %row.next]
  %more.rows = icmp slt i64 %i, %rows
  br i1 %more.rows, label %row.begin, label %done
row.begin:
  %i.past = icmp sgt i64 %i, %last.i
  %i.at = select i1 %i.past, i64 %last.i, i64 %i
  %i.to = mul i64 %i, %to.i
  %i.from = mul i64 %i.at, %from.i
  %row.to = getelementptr $FLOAT, ptr %to, i64 %i.to
  %row.from = getelementptr $FLOAT, ptr %from, i64 %i.from
  br i1 %by.line, label %line, label %column
line:
  call void @llvm.memcpy.p0.p0.i64(ptr %row.to, ptr %row.from, i64 %bytes, i1 false)
  br label %row.next
column:
  %j = phi i64 [0, %row.begin], [%j.1, %column.next]
  %more.columns = icmp slt i64 %j, %columns
  br i1 %more.columns, label %column.begin, label %row.next
column.begin:
  %j.past = icmp sgt i64 %j, %last.j
  %j.at = select i1 %j.past, i64 %last.j, i64 %j
  %j.to = mul i64 %j, %to.j
  %j.from = mul i64 %j.at, %from.j
  %column.to = getelementptr $FLOAT, ptr %row.to, i64 %j.to
  %column.from = getelementptr $FLOAT, ptr %row.from, i64 %j.from
  br label %number
number:
  %c = phi i64 [0, %column.begin], [%c.1, %number.begin]
  %more.numbers = icmp slt i64 %c, %numbers
  br i1 %more.numbers, label %number.begin, label %column.next
number.begin:
  %c.to = mul i64 %c, %to.c
  %c.from = mul i64 %c, %from.c
  %number.to = getelementptr $FLOAT, ptr %column.to, i64 %c.to
  %number.from = getelementptr $FLOAT, ptr %column.from, i64 %c.from
  %x = load $FLOAT, ptr %number.from
  store $FLOAT %x, ptr %number.to
  %c.1 = add i64 %c, 1
  br label %number
column.next:
  %j.1 = add i64 %j, 1
  br label %column
row.next:
  %i.1 = add i64 %i, 1
  br label %row
done:
  ret void
}

; The tiles `first` to `last` of outer rows, with those of inner rows from `inner.first` to `inner.last`. x, y and t are
; buffers for one tile; `segment` is that of the sums which go on from one segment to the next.
define void @run(ptr %pass, i64 %first, i64 %last, i64 %inner.first, i64 %inner.last, i64 %segment, ptr %x, ptr %y,
                 ptr %t) {
  %main = get ptr %pass.main
  %shared = get ptr %pass.shared
  %outer = get i64 %pass.outer
  %inner = get i64 %pass.inner
  %outer.tile = get i64 %pass.outer_tile
  %inner.tile = get i64 %pass.inner_tile
  %inputs = get ptr %pass.inputs
  %inputs.end = get ptr %pass.inputs_end
  %outputs = get ptr %pass.outputs
  %outputs.end = get ptr %pass.outputs_end
  %points = mul i64 %outer.tile, %inner.tile
  br label %outer.next
outer.next:
  %a = phi i64 [%first, %0], [%a.1, %outer.done]
  %more.outer = icmp slt i64 %a, %last
  br i1 %more.outer, label %outer.begin, label %done
outer.begin:
  %i = mul i64 %a, %outer.tile
  %i.left = sub i64 %outer, %i
  %i.few = icmp slt i64 %i.left, %outer.tile
  %rows = select i1 %i.few, i64 %i.left, i64 %outer.tile
  %last.i = sub i64 %rows, 1
  br label %inner.next
inner.next:
  %b = phi i64 [%inner.first, %outer.begin], [%b.1, %outputs.done]
  %j = mul i64 %b, %inner.tile
  %more.inner = icmp slt i64 %b, %inner.last
  br i1 %more.inner, label %inner.begin, label %outer.done
inner.begin:
  %j.left = sub i64 %inner, %j
  %j.few = icmp slt i64 %j.left, %inner.tile
  %columns = select i1 %j.few, i64 %j.left, i64 %inner.tile
  %last.j = sub i64 %columns, 1
  %is.first = icmp eq i64 %b, %inner.first
  br label %input
input:
  %in = phi ptr [%inputs, %inner.begin], [%in.1, %input.done]
  %no.more.inputs = icmp eq ptr %in, %inputs.end
  br i1 %no.more.inputs, label %work, label %input.begin
input.begin:
  %in.array = get ptr %in.array
  %in.block = get i64 %in.block
  %in.of.inner = get i64 %in.of_inner
  %in.at = get i64 %in.at
  %in.to = getelementptr $FLOAT, ptr %x, i64 %in.at
  %is.block = icmp ne i64 %in.block, 0
  br i1 %is.block, label %block, label %whole
block: ; what only the outer, or only the inner rows have lies ready, tile by tile
  %is.outer = icmp eq i64 %in.of.inner, 0
  %is.same = xor i1 %is.first, true
  %is.there = and i1 %is.outer, %is.same
  br i1 %is.there, label %input.done, label %block.copy
block.copy:
  %tile = select i1 %is.outer, i64 %a, i64 %b
  %block.at = mul i64 %tile, %in.block
  %block.from = getelementptr $FLOAT, ptr %in.array, i64 %block.at
  %block.bytes = mul i64 %in.block, $BYTES
  call void @llvm.memcpy.p0.p0.i64(ptr %in.to, ptr %block.from, i64 %block.bytes, i1 false)
  br label %input.done
whole:
  %in.outer = get i64 %in.outer
  %in.inner = get i64 %in.inner
  %in.columns = get i64 %in.columns
  %in.i = mul i64 %i, %in.outer
  %in.j = mul i64 %j, %in.inner
  %in.offset = add i64 %in.i, %in.j
  %in.from = getelementptr $FLOAT, ptr %in.array, i64 %in.offset
  call void @move(ptr %in.to, i64 %inner.tile, i64 1, i64 %points, ptr %in.from, i64 %in.outer, i64 %in.inner, i64 1,
                  i64 %outer.tile, i64 %inner.tile, i64 %in.columns, i64 %last.i, i64 %last.j)
  br label %input.done
input.done:
  %in.1 = getelementptr i8, ptr %in, i64 $IN
  br label %input
work:
  call void %main(ptr %x, ptr %shared, ptr %y, ptr %t)
  br label %output
output:
  %out = phi ptr [%outputs, %work], [%out.1, %output.done]
  %no.more.outputs = icmp eq ptr %out, %outputs.end
  br i1 %no.more.outputs, label %outputs.done, label %output.begin
output.begin:
  %out.array = get ptr %out.array
  %out.columns = get i64 %out.columns
  %out.at = get i64 %out.at
  %out.outer = get i64 %out.outer
  %out.inner = get i64 %out.inner
  %out.from.outer = get i64 %out.from_outer
  %out.from.inner = get i64 %out.from_inner
  %out.from.column = get i64 %out.from_column
  %out.column = get i64 %out.column
  %out.adds = get i64 %out.adds
  %out.segment = get i64 %out.segment
  %out.i = mul i64 %i, %out.outer
  %out.j = mul i64 %j, %out.inner
  %out.s = mul i64 %segment, %out.segment
  %out.ij = add i64 %out.i, %out.j
  %out.offset = add i64 %out.ij, %out.s
  %out.to = getelementptr $FLOAT, ptr %out.array, i64 %out.offset
  %out.from = getelementptr $FLOAT, ptr %y, i64 %out.at
  %has.outer = icmp ne i64 %out.from.outer, 0
  %has.inner = icmp ne i64 %out.from.inner, 0
  %out.rows = select i1 %has.outer, i64 %rows, i64 1
  %out.row.columns = select i1 %has.inner, i64 %columns, i64 1
  %is.sum = icmp ne i64 %out.adds, 0
  br i1 %is.sum, label %output.add, label %output.move
output.add: ; lines of inner rows, or else of the numbers themselves
  br i1 %has.inner, label %add.lines, label %add.numbers
add.lines:
  call void @add(ptr %out.to, i64 %out.outer, i64 %out.column, ptr %out.from, i64 %out.from.outer, i64 %out.from.column,
                 i64 %out.rows, i64 %out.row.columns, i64 %out.columns)
  br label %output.done
add.numbers:
  br i1 %has.outer, label %add.outer, label %add.single
add.outer: ; whose rows lie side by side
  call void @add(ptr %out.to, i64 0, i64 %out.column, ptr %out.from, i64 0, i64 %out.from.column, i64 1, i64 %out.rows,
                 i64 %out.columns)
  br label %output.done
add.single:
  call void @accumulate(ptr %out.to, ptr %out.from, i64 %out.columns)
  br label %output.done
output.move:
  call void @move(ptr %out.to, i64 %out.outer, i64 %out.inner, i64 %out.column, ptr %out.from, i64 %out.from.outer,
                  i64 %out.from.inner, i64 %out.from.column, i64 %out.rows, i64 %out.row.columns, i64 %out.columns,
                  i64 %last.i, i64 %last.j)
  br label %output.done
output.done:
  %out.1 = getelementptr i8, ptr %out, i64 $OUT
  br label %output
outputs.done:
  %b.1 = add i64 %b, 1
  br label %inner.next
outer.done:
  %a.1 = add i64 %a, 1
  br label %outer.next
done:
  ret void
}
