; The native entry: Python's calling convention on one side, main(x, w, y, t, a) on the other. LLVM IR, compiled once a
; process by native.py, which also says what the structures Form, Table and Dispatch hold.
;
; Two things are written here that LLVM would not read as they are; native.py puts in what they stand for.
;   %n = get i64 %walk.single     load a field; `put i64 %n, %walk.single` stores it. The variable has the name of the
;                                 structure (walk, table, form, dispatch, run); one of any other name is an object of Python's
;   $float                        a number: the address of an object of Python's, an opcode, a size
;
; The code of a form or an answer is a row of 64-bit words: an opcode, its operands, then the codes of the parts.
; `walk`, a structure on the stack, is where we are: the next word of code, the next number of x or y, the float type;
; and where main finds its array a, and whether that may be the caller's.
;
; All of this runs with the GIL held, but for a main that takes long. Nothing is changed and no code of Python's is run
; before it is certain that the arguments fit. What is not certain is refused, and left to Python.

declare double @PyLong_AsDouble(ptr)
declare ptr @PyFloat_FromDouble(double)
declare ptr @PyBool_FromLong(i64)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyList_New(i64)
declare i32 @PyList_SetItem(ptr, i64, ptr)
declare ptr @PyLong_FromLongLong(i64)
declare ptr @PyObject_VectorcallDict(ptr, ptr, i64, ptr)
declare ptr @PyDict_New()
declare i32 @PyDict_SetItem(ptr, ptr, ptr)
declare ptr @PyErr_Occurred()
declare void @PyErr_Clear()
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare i64 @PyThread_get_thread_ident()
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare double @llvm.floor.f64(double)
declare double @llvm.fabs.f64(double)

; ---------------------------------------------------------------------------------------------------------------------
; Numbers between Python's doubles and buffers of float or double. `single` is 1 for float, 0 for double.

; n doubles into a buffer; the address after the last one.
define internal ptr @narrow(ptr %to, ptr %from, i64 %n, i64 %single) {
  %is_double = icmp eq i64 %single, 0
  br i1 %is_double, label %copy, label %next
copy:
  %bytes = shl i64 %n, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %bytes, i1 false)
  %end = getelementptr i8, ptr %to, i64 %bytes
  ret ptr %end
next:
  %i = phi i64 [0, %0], [%i.8, %eight], [%i.1, %one]
  %left = sub i64 %n, %i
  %at = getelementptr float, ptr %to, i64 %i
  %of = getelementptr double, ptr %from, i64 %i
  %many = icmp sge i64 %left, 8
  br i1 %many, label %eight, label %few
eight:
  %wide.8 = load <8 x double>, ptr %of, align 1
  %narrow.8 = fptrunc <8 x double> %wide.8 to <8 x float>
  store <8 x float> %narrow.8, ptr %at, align 4
  %i.8 = add i64 %i, 8
  br label %next
few:
  %any = icmp sgt i64 %left, 0
  br i1 %any, label %one, label %done
one:
  %wide = load double, ptr %of, align 1
  %narrow = fptrunc double %wide to float
  store float %narrow, ptr %at
  %i.1 = add i64 %i, 1
  br label %next
done:
  ret ptr %at
}

; n numbers of a buffer into doubles.
define internal void @widen(ptr %to, ptr %from, i64 %n, i64 %single) {
  %is_double = icmp eq i64 %single, 0
  br i1 %is_double, label %copy, label %next
copy:
  %bytes = shl i64 %n, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %bytes, i1 false)
  ret void
next:
  %i = phi i64 [0, %0], [%i.8, %eight], [%i.1, %one]
  %left = sub i64 %n, %i
  %at = getelementptr double, ptr %to, i64 %i
  %of = getelementptr float, ptr %from, i64 %i
  %many = icmp sge i64 %left, 8
  br i1 %many, label %eight, label %few
eight:
  %narrow.8 = load <8 x float>, ptr %of, align 1
  %wide.8 = fpext <8 x float> %narrow.8 to <8 x double>
  store <8 x double> %wide.8, ptr %at, align 8
  %i.8 = add i64 %i, 8
  br label %next
few:
  %any = icmp sgt i64 %left, 0
  br i1 %any, label %one, label %done
one:
  %narrow = load float, ptr %of, align 1
  %wide = fpext float %narrow to double
  store double %wide, ptr %at
  %i.1 = add i64 %i, 1
  br label %next
done:
  ret void
}

; One double to where the walk is.
define internal void @append(ptr %walk, double %number) {
  %to = get ptr %walk.number
  %single = get i64 %walk.single
  %is_double = icmp eq i64 %single, 0
  br i1 %is_double, label %double, label %float
double:
  store double %number, ptr %to
  %next_double = getelementptr double, ptr %to, i64 1
  put ptr %next_double, %walk.number
  ret void
float:
  %narrow = fptrunc double %number to float
  store float %narrow, ptr %to
  %next_float = getelementptr float, ptr %to, i64 1
  put ptr %next_float, %walk.number
  ret void
}

; Number i of y, as a double.
define internal double @number_of(ptr %walk, i64 %i) {
  %y = get ptr %walk.number
  %single = get i64 %walk.single
  %is_double = icmp eq i64 %single, 0
  br i1 %is_double, label %double, label %float
double:
  %double.at = getelementptr double, ptr %y, i64 %i
  %number = load double, ptr %double.at
  ret double %number
float:
  %float.at = getelementptr float, ptr %y, i64 %i
  %narrow = load float, ptr %float.at
  %wide = fpext float %narrow to double
  ret double %wide
}

; The next word of code.
define internal i64 @word(ptr %walk) {
  %code = get ptr %walk.code
  %word = load i64, ptr %code
  %next = getelementptr i64, ptr %code, i64 1
  put ptr %next, %walk.code
  ret i64 %word
}

; ---------------------------------------------------------------------------------------------------------------------
; Arguments. Each of these says whether what it was given fits, and has appended its numbers to x then.

; n objects that must be floats or ints; subclasses, whose own code may do anything, are left to Python.
define internal i1 @take_numbers(ptr %walk, ptr %objects, i64 %n) {
  %first = get ptr %walk.number
  %single = get i64 %walk.single
  %is_double = icmp eq i64 %single, 0
  br label %next
next:
  %i = phi i64 [0, %0], [%i.1, %double], [%i.1, %float]
  %to = phi ptr [%first, %0], [%to.double, %double], [%to.float, %float]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %look, label %done
look:
  %at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %at
  %missing = icmp eq ptr %object, null
  br i1 %missing, label %refuse, label %kind
kind:
  %type = get i64 %object.ob_type
  %is_float = icmp eq i64 %type, $float
  br i1 %is_float, label %python_float, label %other
python_float:
  %of_float = get double %object.ob_fval
  br label %number
other:
  switch i64 %type, label %refuse [ i64 $int, label %python_int
                                    i64 $numpy_float64, label %python_float ]
python_int:
  %of_int = call double @PyLong_AsDouble(ptr %object)
  %size = call double @llvm.fabs.f64(double %of_int)
  %is_exact = fcmp olt double %size, 9007199254740992.0
  br i1 %is_exact, label %exact, label %refuse
exact: ; of a larger int the double may be another number, and Python will say so
  %suspicious = fcmp oeq double %of_int, -1.0
  br i1 %suspicious, label %ask, label %number
ask:
  %error = call ptr @PyErr_Occurred()
  %fine = icmp eq ptr %error, null
  br i1 %fine, label %number, label %clear
clear: ; the int is too large for a double
  call void @PyErr_Clear()
  br label %refuse
number:
  %x = phi double [%of_float, %python_float], [%of_int, %exact], [%of_int, %ask]
  %i.1 = add i64 %i, 1
  br i1 %is_double, label %double, label %float
double:
  store double %x, ptr %to
  %to.double = getelementptr double, ptr %to, i64 1
  br label %next
float:
  %narrow = fptrunc double %x to float
  store float %narrow, ptr %to
  %to.float = getelementptr float, ptr %to, i64 1
  br label %next
done:
  put ptr %to, %walk.number
  ret i1 true
refuse:
  ret i1 false
}

; n objects that must be lists of so many numbers each: the rows of a matrix.
define internal i1 @take_rows(ptr %walk, ptr %objects, i64 %n, i64 %length) {
  br label %next
next:
  %i = phi i64 [0, %0], [%i.1, %items]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %look, label %done
look:
  %at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %at
  %missing = icmp eq ptr %object, null
  br i1 %missing, label %refuse, label %kind
kind:
  %type = get i64 %object.ob_type
  %is_list = icmp eq i64 %type, $list
  br i1 %is_list, label %size, label %refuse
size:
  %object.size = get i64 %object.ob_size
  %right_size = icmp eq i64 %object.size, %length
  br i1 %right_size, label %items, label %refuse
items:
  %numbers = get ptr %object.ob_item
  %i.1 = add i64 %i, 1
  %taken = call i1 @take_numbers(ptr %walk, ptr %numbers, i64 %length)
  br i1 %taken, label %next, label %refuse
done:
  ret i1 true
refuse:
  ret i1 false
}

; The data of a Value of the engine's own class: from its home, or the number that its slot holds. No Value may come
; twice in a call.
define internal i1 @take_value(ptr %walk, ptr %value) {
  %type = get i64 %value.ob_type
  switch i64 %type, label %refuse [ i64 $Value, label %fits
                                    i64 $Homed, label %fits ]
fits:
  %mask = get i64 %walk.mask
  %is_only_one = icmp eq i64 %mask, 0
  br i1 %is_only_one, label %new, label %hash
hash: ; the program is for different Values
  %address.of = ptrtoint ptr %value to i64
  %units = lshr i64 %address.of, 4
  %mixed = mul i64 %units, 11400714819323198485
  %start = lshr i64 %mixed, 32
  %seen = get ptr %walk.seen
  br label %probe
probe:
  %hash.k = phi i64 [%start, %hash], [%hash.1, %occupied]
  %slot.k = and i64 %hash.k, %mask
  %slot.at = getelementptr ptr, ptr %seen, i64 %slot.k
  %other = load ptr, ptr %slot.at
  %is_free = icmp eq ptr %other, null
  br i1 %is_free, label %note, label %occupied
occupied: ; there are more slots than Values
  %hash.1 = add i64 %hash.k, 1
  %is_same = icmp eq ptr %other, %value
  br i1 %is_same, label %refuse, label %probe
note:
  store ptr %value, ptr %slot.at
  br label %new
new:
  %content = get ptr %value.data
  %missing = icmp eq ptr %content, null
  br i1 %missing, label %refuse, label %look
look:
  %content.type = get i64 %content.ob_type
  switch i64 %content.type, label %number [ i64 $Home, label %home
                                            i64 $NarrowHome, label %narrow_home ]
narrow_home:
  %narrow.address = get ptr %content.b_ptr
  %narrow.x = load float, ptr %narrow.address
  %wide.x = fpext float %narrow.x to double
  call void @append(ptr %walk, double %wide.x)
  ret i1 true
home:
  %address = get ptr %content.b_ptr
  %x = load double, ptr %address
  call void @append(ptr %walk, double %x)
  ret i1 true
number:
  %slot = getelementptr i8, ptr %value, i64 $data
  %taken = call i1 @take_numbers(ptr %walk, ptr %slot, i64 1)
  ret i1 %taken
refuse:
  ret i1 false
}

; n elements of an array, `stride` bytes apart; `descr` is one of the four types that @take_array lets through.
define internal void @take_elements(ptr %walk, ptr %data, i64 %stride, i64 %n, i64 %descr) {
  %is_f64 = icmp eq i64 %descr, $float64
  %is_dense = icmp eq i64 %stride, 8
  %is_row = and i1 %is_f64, %is_dense
  %to = get ptr %walk.number
  %single = get i64 %walk.single
  br i1 %is_row, label %row, label %look_at_f32
row:
  %after = call ptr @narrow(ptr %to, ptr %data, i64 %n, i64 %single)
  put ptr %after, %walk.number
  ret void
look_at_f32:
  %is_f32 = icmp eq i64 %descr, $float32
  %is_dense_f32 = icmp eq i64 %stride, 4
  %is_row_f32 = and i1 %is_f32, %is_dense_f32
  br i1 %is_row_f32, label %row_f32, label %next
row_f32:
  %bytes = shl i64 %n, 2
  %is_single = icmp ne i64 %single, 0
  br i1 %is_single, label %copy_f32, label %widen_f32
copy_f32:
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %data, i64 %bytes, i1 false)
  %after_f32 = getelementptr i8, ptr %to, i64 %bytes
  put ptr %after_f32, %walk.number
  ret void
widen_f32:
  call void @widen(ptr %to, ptr %data, i64 %n, i64 1)
  %after_f64 = getelementptr double, ptr %to, i64 %n
  put ptr %after_f64, %walk.number
  ret void
next:
  %i = phi i64 [0, %look_at_f32], [%i.1, %element]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %look, label %done
look:
  %offset = mul i64 %i, %stride
  %at = getelementptr i8, ptr %data, i64 %offset
  switch i64 %descr, label %f64 [ i64 $float32, label %f32
                                  i64 $int64, label %i64
                                  i64 $int32, label %i32 ]
f64:
  %of_f64 = load double, ptr %at, align 1
  br label %element
f32:
  %float = load float, ptr %at, align 1
  %of_f32 = fpext float %float to double
  br label %element
i64:
  %long = load i64, ptr %at, align 1
  %of_i64 = sitofp i64 %long to double
  br label %element
i32:
  %int = load i32, ptr %at, align 1
  %of_i32 = sitofp i32 %int to double
  br label %element
element:
  %x = phi double [%of_f64, %f64], [%of_f32, %f32], [%of_i64, %i64], [%of_i32, %i32]
  call void @append(ptr %walk, double %x)
  %i.1 = add i64 %i, 1
  br label %next
done:
  ret void
}

; The elements of an array with so many dimensions left, at least one, in C order.
define internal void @take_axis(ptr %walk, ptr %data, ptr %shape, ptr %strides, i64 %dimensions, i64 %descr) {
  %n = load i64, ptr %shape
  %stride = load i64, ptr %strides
  %is_last = icmp eq i64 %dimensions, 1
  br i1 %is_last, label %last, label %next
last:
  call void @take_elements(ptr %walk, ptr %data, i64 %stride, i64 %n, i64 %descr)
  ret void
next:
  %i = phi i64 [0, %0], [%i.1, %row]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %row, label %done
row:
  %offset = mul i64 %i, %stride
  %at = getelementptr i8, ptr %data, i64 %offset
  %inner_shape = getelementptr i64, ptr %shape, i64 1
  %inner_strides = getelementptr i64, ptr %strides, i64 1
  %inner = sub i64 %dimensions, 1
  call void @take_axis(ptr %walk, ptr %at, ptr %inner_shape, ptr %inner_strides, i64 %inner, i64 %descr)
  %i.1 = add i64 %i, 1
  br label %next
done:
  ret void
}

; An array of numpy's own class, in this processor's byte order, of the shape that the code goes on with.
define internal i1 @take_array(ptr %walk, ptr %array) {
  %type = get i64 %array.ob_type
  %is_array = icmp eq i64 %type, $ndarray
  br i1 %is_array, label %number_of_dimensions, label %refuse
number_of_dimensions:
  %dimensions = call i64 @word(ptr %walk)
  %nd.32 = get i32 %array.nd
  %nd = sext i32 %nd.32 to i64
  %right_number = icmp eq i64 %nd, %dimensions
  br i1 %right_number, label %axes, label %refuse
axes:
  %shape = get ptr %array.dimensions
  %strides = get ptr %array.strides
  br label %axis
axis:
  %i = phi i64 [0, %axes], [%i.1, %extent]
  %size = phi i64 [1, %axes], [%size.1, %extent]
  %more = icmp slt i64 %i, %dimensions
  br i1 %more, label %extent, label %element_type
extent:
  %expected = call i64 @word(ptr %walk)
  %extent.at = getelementptr i64, ptr %shape, i64 %i
  %n = load i64, ptr %extent.at
  %size.1 = mul i64 %size, %n
  %i.1 = add i64 %i, 1
  %right_extent = icmp eq i64 %n, %expected
  br i1 %right_extent, label %axis, label %refuse
element_type:
  %descr = get i64 %array.descr
  switch i64 %descr, label %refuse [ i64 $float64, label %elements
                                     i64 $float32, label %elements
                                     i64 $int64, label %elements
                                     i64 $int32, label %elements ]
elements:
  %data = get ptr %array.array_data
  %flags = get i32 %array.flags
  %contiguous = and i32 %flags, $contiguous
  %is_contiguous = icmp ne i32 %contiguous, 0
  br i1 %is_contiguous, label %whose, label %by_axis
whose: ; main may read the array where it is, if it is that which stands apart, of its type and on an address for that
  %number = get ptr %walk.number
  %a = get ptr %walk.apart
  %borrows = get i64 %walk.borrows
  %single = get i64 %walk.single
  %is_double = icmp eq i64 %single, 0
  %own_type = select i1 %is_double, i64 $float64, i64 $float32
  %unit = select i1 %is_double, i64 8, i64 4
  %last_bits = sub i64 %unit, 1
  %address = ptrtoint ptr %data to i64
  %off = and i64 %address, %last_bits
  %is_own_type = icmp eq i64 %descr, %own_type
  %is_aligned = icmp eq i64 %off, 0
  %is_apart = icmp eq ptr %number, %a
  %is_any = icmp ne i64 %size, 0
  %may = icmp ne i64 %borrows, 0
  %both.1 = and i1 %is_own_type, %is_aligned
  %both.2 = and i1 %is_apart, %is_any
  %both.3 = and i1 %both.1, %both.2
  %all = and i1 %both.3, %may
  br i1 %all, label %borrow, label %at_once
borrow:
  %bytes = mul i64 %size, %unit
  %number.after = getelementptr i8, ptr %number, i64 %bytes
  put ptr %data, %walk.apart
  put ptr %number.after, %walk.number
  ret i1 true
at_once:
  %is_4 = icmp eq i64 %descr, $float32
  %is_i4 = icmp eq i64 %descr, $int32
  %is_small = or i1 %is_4, %is_i4
  %stride = select i1 %is_small, i64 4, i64 8
  call void @take_elements(ptr %walk, ptr %data, i64 %stride, i64 %size, i64 %descr)
  ret i1 true
by_axis:
  call void @take_axis(ptr %walk, ptr %data, ptr %shape, ptr %strides, i64 %dimensions, i64 %descr)
  ret i1 true
refuse:
  ret i1 false
}

; An array of any number of rows. Main reads it where it is if it is dense and of main's float type, and else a copy in
; the block. The code goes on with how many dimensions it has, and for each its extent, or -1 for any; where to leave the
; address of its numbers; where the number of rows is kept, how many there may be, and how many there must be: 0 if
; another array has said how many there are; and where in the block there is room for a copy, of how many rows.
define internal i1 @take_open(ptr %walk, ptr %array) {
  %type = get i64 %array.ob_type
  %is_array = icmp eq i64 %type, $ndarray
  br i1 %is_array, label %number_of_dimensions, label %refuse
number_of_dimensions:
  %dimensions = call i64 @word(ptr %walk)
  %nd.32 = get i32 %array.nd
  %nd = sext i32 %nd.32 to i64
  %right_number = icmp eq i64 %nd, %dimensions
  br i1 %right_number, label %axes, label %refuse
axes:
  %shape = get ptr %array.dimensions
  %strides = get ptr %array.strides
  %rows = load i64, ptr %shape
  br label %axis
axis:
  %i = phi i64 [0, %axes], [%i.1, %extent]
  %more = icmp slt i64 %i, %dimensions
  br i1 %more, label %extent, label %count
extent:
  %expected = call i64 @word(ptr %walk)
  %extent.at = getelementptr i64, ptr %shape, i64 %i
  %n = load i64, ptr %extent.at
  %i.1 = add i64 %i, 1
  %right_extent = icmp eq i64 %n, %expected
  %any_extent = icmp eq i64 %expected, -1
  %fits = or i1 %right_extent, %any_extent
  br i1 %fits, label %axis, label %refuse
count:
  %slot.word = call i64 @word(ptr %walk)
  %count.word = call i64 @word(ptr %walk)
  %most = call i64 @word(ptr %walk)
  %least = call i64 @word(ptr %walk)
  %copy.at = call i64 @word(ptr %walk)
  %copy.rows = call i64 @word(ptr %walk)
  %slot = inttoptr i64 %slot.word to ptr
  %kept = inttoptr i64 %count.word to ptr
  %says = icmp ne i64 %least, 0
  br i1 %says, label %first, label %compare
first:
  %not_few = icmp sge i64 %rows, %least
  %not_many = icmp sle i64 %rows, %most
  %some = and i1 %not_few, %not_many
  store i64 %rows, ptr %kept
  br i1 %some, label %elements, label %refuse
compare:
  %known = load i64, ptr %kept
  %as_many = icmp eq i64 %rows, %known
  br i1 %as_many, label %elements, label %refuse
elements:
  %descr = get i64 %array.descr
  %flags = get i32 %array.flags
  %data = get ptr %array.array_data
  %single = get i64 %walk.single
  %is_double = icmp eq i64 %single, 0
  %own_type = select i1 %is_double, i64 $float64, i64 $float32
  %unit = select i1 %is_double, i64 8, i64 4
  %is_own_type = icmp eq i64 %descr, %own_type
  %contiguous = and i32 %flags, $contiguous
  %is_contiguous = icmp ne i32 %contiguous, 0
  %last_bits = sub i64 %unit, 1
  %address = ptrtoint ptr %data to i64
  %off = and i64 %address, %last_bits
  %is_aligned = icmp eq i64 %off, 0
  %dense = and i1 %is_contiguous, %is_aligned
  %as_it_is = and i1 %dense, %is_own_type
  br i1 %as_it_is, label %borrow, label %room
borrow:
  store ptr %data, ptr %slot
  ret i1 true
room:
  %has_room = icmp sle i64 %rows, %copy.rows
  br i1 %has_room, label %element_type, label %refuse
element_type:
  switch i64 %descr, label %refuse [ i64 $float64, label %copy
                                     i64 $float32, label %copy
                                     i64 $int64, label %copy
                                     i64 $int32, label %copy ]
copy:
  %block = get ptr %walk.block
  %to = getelementptr i8, ptr %block, i64 %copy.at
  %number = get ptr %walk.number
  put ptr %to, %walk.number
  br i1 %is_contiguous, label %at_once, label %by_axis
at_once:
  br label %product
product:
  %k = phi i64 [0, %at_once], [%k.1, %factor]
  %size = phi i64 [1, %at_once], [%size.1, %factor]
  %more_factors = icmp slt i64 %k, %dimensions
  br i1 %more_factors, label %factor, label %dense_elements
factor:
  %factor.at = getelementptr i64, ptr %shape, i64 %k
  %f = load i64, ptr %factor.at
  %size.1 = mul i64 %size, %f
  %k.1 = add i64 %k, 1
  br label %product
dense_elements:
  %is_4 = icmp eq i64 %descr, $float32
  %is_i4 = icmp eq i64 %descr, $int32
  %is_small = or i1 %is_4, %is_i4
  %stride = select i1 %is_small, i64 4, i64 8
  call void @take_elements(ptr %walk, ptr %data, i64 %stride, i64 %size, i64 %descr)
  br label %copied
by_axis:
  call void @take_axis(ptr %walk, ptr %data, ptr %shape, ptr %strides, i64 %dimensions, i64 %descr)
  br label %copied
copied:
  put ptr %number, %walk.number
  store ptr %to, ptr %slot
  ret i1 true
refuse:
  ret i1 false
}

; A list of any number of rows: of numbers, or of lists of so many each, which are copied into the block. The code goes on
; with how many dimensions it has, its length, or -1 for any, that of its rows, and then as that of an array does.
define internal i1 @take_open_list(ptr %walk, ptr %list) {
  %dimensions = call i64 @word(ptr %walk)
  %length = call i64 @word(ptr %walk)
  %columns = call i64 @word(ptr %walk)
  %slot.word = call i64 @word(ptr %walk)
  %count.word = call i64 @word(ptr %walk)
  %most = call i64 @word(ptr %walk)
  %least = call i64 @word(ptr %walk)
  %copy.at = call i64 @word(ptr %walk)
  %copy.rows = call i64 @word(ptr %walk)
  %type = get i64 %list.ob_type
  %is_list = icmp eq i64 %type, $list
  br i1 %is_list, label %size, label %refuse
size:
  %rows = get i64 %list.ob_size
  %right_length = icmp eq i64 %rows, %length
  %any_length = icmp eq i64 %length, -1
  %fits = or i1 %right_length, %any_length
  %has_room = icmp sle i64 %rows, %copy.rows
  %may = and i1 %fits, %has_room
  br i1 %may, label %count, label %refuse
count:
  %slot = inttoptr i64 %slot.word to ptr
  %kept = inttoptr i64 %count.word to ptr
  %says = icmp ne i64 %least, 0
  br i1 %says, label %first, label %compare
first:
  %not_few = icmp sge i64 %rows, %least
  %not_many = icmp sle i64 %rows, %most
  %some = and i1 %not_few, %not_many
  store i64 %rows, ptr %kept
  br i1 %some, label %copy, label %refuse
compare:
  %known = load i64, ptr %kept
  %as_many = icmp eq i64 %rows, %known
  br i1 %as_many, label %copy, label %refuse
copy:
  %block = get ptr %walk.block
  %to = getelementptr i8, ptr %block, i64 %copy.at
  %number = get ptr %walk.number
  %items = get ptr %list.ob_item
  store ptr %to, ptr %slot
  put ptr %to, %walk.number
  %is_flat = icmp eq i64 %dimensions, 1
  br i1 %is_flat, label %numbers, label %lists
numbers:
  %took_numbers = call i1 @take_numbers(ptr %walk, ptr %items, i64 %rows)
  br i1 %took_numbers, label %copied, label %refuse
lists:
  %took_lists = call i1 @take_rows(ptr %walk, ptr %items, i64 %rows, i64 %columns)
  br i1 %took_lists, label %copied, label %refuse
copied:
  put ptr %number, %walk.number
  ret i1 true
refuse:
  ret i1 false
}

; n objects that must fit the next codes.
define internal i1 @take(ptr %walk, ptr %objects, i64 %n) {
  br label %next
next:
  %i = phi i64 [0, %0], [%i.numbers, %numbers], [%i.rows, %rows], [%i.1, %taken]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %look, label %done
look:
  %at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %at
  %missing = icmp eq ptr %object, null
  br i1 %missing, label %refuse, label %kind
kind:
  %type = get i64 %object.ob_type
  %opcode = call i64 @word(ptr %walk)
  switch i64 %opcode, label %refuse [ i64 $NUMBERS, label %numbers
                                      i64 $ROWS, label %rows
                                      i64 $VALUE, label %value
                                      i64 $HOMELESS, label %homeless
                                      i64 $LIST, label %list
                                      i64 $TUPLE, label %tuple
                                      i64 $ARRAY, label %array
                                      i64 $OPEN, label %open
                                      i64 $OPEN_LIST, label %open_list
                                      i64 $SAME, label %same ]
numbers: ; so many in a row
  %count = call i64 @word(ptr %walk)
  %i.numbers = add i64 %i, %count
  %took_numbers = call i1 @take_numbers(ptr %walk, ptr %at, i64 %count)
  br i1 %took_numbers, label %next, label %refuse
rows:
  %rows.count = call i64 @word(ptr %walk)
  %length = call i64 @word(ptr %walk)
  %i.rows = add i64 %i, %rows.count
  %took_rows = call i1 @take_rows(ptr %walk, ptr %at, i64 %rows.count, i64 %length)
  br i1 %took_rows, label %next, label %refuse
homeless:
  %has_no_home = icmp eq i64 %type, $Value
  br i1 %has_no_home, label %value, label %refuse
value:
  %took_value = call i1 @take_value(ptr %walk, ptr %object)
  br i1 %took_value, label %taken, label %refuse
list:
  %is_list = icmp eq i64 %type, $list
  br i1 %is_list, label %list_items, label %refuse
list_items:
  %of_list = get ptr %object.ob_item
  br label %inner
tuple:
  %is_tuple = icmp eq i64 %type, $tuple
  br i1 %is_tuple, label %tuple_items, label %refuse
tuple_items:
  %of_tuple = getelementptr i8, ptr %object, i64 $tuple_items
  br label %inner
inner:
  %items = phi ptr [%of_list, %list_items], [%of_tuple, %tuple_items]
  %size = get i64 %object.ob_size
  %expected = call i64 @word(ptr %walk)
  %right_size = icmp eq i64 %size, %expected
  br i1 %right_size, label %inside, label %refuse
inside:
  %took_items = call i1 @take(ptr %walk, ptr %items, i64 %size)
  br i1 %took_items, label %taken, label %refuse
array:
  %took_array = call i1 @take_array(ptr %walk, ptr %object)
  br i1 %took_array, label %taken, label %refuse
open:
  %took_open = call i1 @take_open(ptr %walk, ptr %object)
  br i1 %took_open, label %taken, label %refuse
open_list:
  %took_open_list = call i1 @take_open_list(ptr %walk, ptr %object)
  br i1 %took_open_list, label %taken, label %refuse
same: ; the very object
  %wanted = call i64 @word(ptr %walk)
  %address = ptrtoint ptr %object to i64
  %is_same = icmp eq i64 %address, %wanted
  br i1 %is_same, label %taken, label %refuse
taken:
  %i.1 = add i64 %i, 1
  br label %next
done:
  ret i1 true
refuse:
  ret i1 false
}

; ---------------------------------------------------------------------------------------------------------------------
; Answers: a new reference each, or null with an exception set.

; A list of the first n numbers of y.
define internal ptr @list_of_numbers(ptr %walk, i64 %n) {
  %list = call ptr @PyList_New(i64 %n)
  %no_list = icmp eq ptr %list, null
  br i1 %no_list, label %fail, label %next
next:
  %i = phi i64 [0, %0], [%i.1, %set]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %number, label %done
number:
  %x = call double @number_of(ptr %walk, i64 %i)
  %object = call ptr @PyFloat_FromDouble(double %x)
  %no_object = icmp eq ptr %object, null
  br i1 %no_object, label %drop, label %set
set:
  %status = call i32 @PyList_SetItem(ptr %list, i64 %i, ptr %object)
  %i.1 = add i64 %i, 1
  br label %next
drop:
  call void @Py_DecRef(ptr %list)
  br label %fail
fail:
  ret ptr null
done:
  ret ptr %list
}

; A new array, of the shape and the type that the code goes on with, of the numbers of y from `first` on.
define internal ptr @array_of_numbers(ptr %walk) {
  %arguments = alloca [2 x ptr]
  %first = call i64 @word(ptr %walk)
  %n = call i64 @word(ptr %walk)
  %shape = call i64 @word(ptr %walk)
  %single = get i64 %walk.single
  %is_double = icmp eq i64 %single, 0
  %descr = select i1 %is_double, i64 $float64, i64 $float32
  %descr.at = getelementptr i64, ptr %arguments, i64 1
  store i64 %shape, ptr %arguments
  store i64 %descr, ptr %descr.at
  %array = call ptr @PyObject_VectorcallDict(ptr inttoptr (i64 $empty to ptr), ptr %arguments, i64 2, ptr null)
  %failed = icmp eq ptr %array, null
  br i1 %failed, label %done, label %fill
fill:
  %y = get ptr %walk.number
  %data = get ptr %array.array_data
  %unit = select i1 %is_double, i64 8, i64 4
  %offset = mul i64 %first, %unit
  %bytes = mul i64 %n, %unit
  %from = getelementptr i8, ptr %y, i64 %offset
  call void @llvm.memcpy.p0.p0.i64(ptr %data, ptr %from, i64 %bytes, i1 false)
  br label %done
done:
  ret ptr %array
}

; A new array of what every row returns. The code goes on with where it stands, and where how many rows there are, in
; bytes from y; how many numbers a row has, how many dimensions, and their extents.
define internal ptr @array_of_rows(ptr %walk) {
  %arguments = alloca [2 x ptr]
  %data.at = call i64 @word(ptr %walk)
  %rows.at = call i64 @word(ptr %walk)
  %columns = call i64 @word(ptr %walk)
  %inner = call i64 @word(ptr %walk)
  %y = get ptr %walk.number
  %from = getelementptr i8, ptr %y, i64 %data.at
  %rows.of = getelementptr i8, ptr %y, i64 %rows.at
  %rows = load i64, ptr %rows.of
  %dimensions = add i64 %inner, 1
  %shape = call ptr @PyTuple_New(i64 %dimensions)
  %no_shape = icmp eq ptr %shape, null
  br i1 %no_shape, label %fail, label %axis
axis:
  %i = phi i64 [0, %0], [%i.1, %another]
  %extent = phi i64 [%rows, %0], [%extent.1, %another]
  %object = call ptr @PyLong_FromLongLong(i64 %extent)
  %no_object = icmp eq ptr %object, null
  br i1 %no_object, label %drop, label %set
set:
  %status = call i32 @PyTuple_SetItem(ptr %shape, i64 %i, ptr %object)
  %i.1 = add i64 %i, 1
  %more = icmp slt i64 %i.1, %dimensions
  br i1 %more, label %another, label %make
another:
  %extent.1 = call i64 @word(ptr %walk)
  br label %axis
make:
  %single = get i64 %walk.single
  %is_double = icmp eq i64 %single, 0
  %descr = select i1 %is_double, i64 $float64, i64 $float32
  %descr.at = getelementptr i64, ptr %arguments, i64 1
  store ptr %shape, ptr %arguments
  store i64 %descr, ptr %descr.at
  %array = call ptr @PyObject_VectorcallDict(ptr inttoptr (i64 $empty to ptr), ptr %arguments, i64 2, ptr null)
  call void @Py_DecRef(ptr %shape)
  %failed = icmp eq ptr %array, null
  br i1 %failed, label %fail, label %fill
fill:
  %data = get ptr %array.array_data
  %unit = select i1 %is_double, i64 8, i64 4
  %size = mul i64 %rows, %columns
  %bytes = mul i64 %size, %unit
  call void @llvm.memcpy.p0.p0.i64(ptr %data, ptr %from, i64 %bytes, i1 false)
  ret ptr %array
drop:
  call void @Py_DecRef(ptr %shape)
  br label %fail
fail:
  ret ptr null
}

; A new list of what every row returns: numbers, or a list of them each. The code is that of an array of it.
define internal ptr @list_of_rows(ptr %walk) {
  %data.at = call i64 @word(ptr %walk)
  %rows.at = call i64 @word(ptr %walk)
  %columns = call i64 @word(ptr %walk)
  %inner = call i64 @word(ptr %walk)
  %y = get ptr %walk.number
  %from = getelementptr i8, ptr %y, i64 %data.at
  %rows.of = getelementptr i8, ptr %y, i64 %rows.at
  %rows = load i64, ptr %rows.of
  put ptr %from, %walk.number
  %is_flat = icmp eq i64 %inner, 0
  br i1 %is_flat, label %flat, label %deep
flat:
  %flat.list = call ptr @list_of_numbers(ptr %walk, i64 %rows)
  put ptr %y, %walk.number
  ret ptr %flat.list
deep:
  %extent = call i64 @word(ptr %walk)
  %single = get i64 %walk.single
  %is_double = icmp eq i64 %single, 0
  %unit = select i1 %is_double, i64 8, i64 4
  %row.bytes = mul i64 %columns, %unit
  %list = call ptr @PyList_New(i64 %rows)
  %no_list = icmp eq ptr %list, null
  br i1 %no_list, label %done, label %next
next:
  %i = phi i64 [0, %deep], [%i.1, %set]
  %more = icmp slt i64 %i, %rows
  br i1 %more, label %row, label %done
row:
  %offset = mul i64 %i, %row.bytes
  %row.from = getelementptr i8, ptr %from, i64 %offset
  put ptr %row.from, %walk.number
  %object = call ptr @list_of_numbers(ptr %walk, i64 %extent)
  %no_object = icmp eq ptr %object, null
  br i1 %no_object, label %drop, label %set
set:
  %status = call i32 @PyList_SetItem(ptr %list, i64 %i, ptr %object)
  %i.1 = add i64 %i, 1
  br label %next
drop:
  call void @Py_DecRef(ptr %list)
  br label %done
done:
  %result = phi ptr [null, %deep], [%list, %next], [null, %drop]
  put ptr %y, %walk.number
  ret ptr %result
}

; What the next code describes. `outputs` is how many numbers of y belong to the answer.
define internal ptr @build(ptr %walk, i64 %outputs) {
  %argument = alloca ptr
  %opcode = call i64 @word(ptr %walk)
  switch i64 %opcode, label %fail [ i64 $NUMBERS, label %number
                                    i64 $TRUTH, label %truth
                                    i64 $LIST, label %list
                                    i64 $TUPLE, label %tuple
                                    i64 $ARRAY, label %array
                                    i64 $ROWS, label %rows
                                    i64 $OPEN_LIST, label %row_lists
                                    i64 $SAME, label %same
                                    i64 $ANOTHER, label %another ]
number:
  %i.number = call i64 @word(ptr %walk)
  %x = call double @number_of(ptr %walk, i64 %i.number)
  %float = call ptr @PyFloat_FromDouble(double %x)
  ret ptr %float
truth: ; nan is true, as in Python
  %i.truth = call i64 @word(ptr %walk)
  %condition = call double @number_of(ptr %walk, i64 %i.truth)
  %is_true = fcmp une double %condition, 0.0
  %one_or_zero = zext i1 %is_true to i64
  %bool = call ptr @PyBool_FromLong(i64 %one_or_zero)
  ret ptr %bool
same:
  %constant.word = call i64 @word(ptr %walk)
  %constant = inttoptr i64 %constant.word to ptr
  call void @Py_IncRef(ptr %constant)
  ret ptr %constant
array:
  %new_array = call ptr @array_of_numbers(ptr %walk)
  ret ptr %new_array
rows:
  %new_rows = call ptr @array_of_rows(ptr %walk)
  ret ptr %new_rows
row_lists:
  %new_lists = call ptr @list_of_rows(ptr %walk)
  ret ptr %new_lists
another: ; a callable of Python's makes it of all the numbers
  %maker.word = call i64 @word(ptr %walk)
  %maker = inttoptr i64 %maker.word to ptr
  %all = call ptr @list_of_numbers(ptr %walk, i64 %outputs)
  store ptr %all, ptr %argument
  %no_numbers = icmp eq ptr %all, null
  br i1 %no_numbers, label %fail, label %make
make:
  %made = call ptr @PyObject_VectorcallDict(ptr %maker, ptr %argument, i64 1, ptr null)
  call void @Py_DecRef(ptr %all)
  ret ptr %made
list:
  %list.n = call i64 @word(ptr %walk)
  %list.new = call ptr @PyList_New(i64 %list.n)
  br label %container
tuple:
  %tuple.n = call i64 @word(ptr %walk)
  %tuple.new = call ptr @PyTuple_New(i64 %tuple.n)
  br label %container
container:
  %is_list = phi i1 [true, %list], [false, %tuple]
  %n = phi i64 [%list.n, %list], [%tuple.n, %tuple]
  %new = phi ptr [%list.new, %list], [%tuple.new, %tuple]
  %no_memory = icmp eq ptr %new, null
  br i1 %no_memory, label %fail, label %next
next:
  %i = phi i64 [0, %container], [%i.1, %in_list], [%i.1, %in_tuple]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %part, label %done
part:
  %item = call ptr @build(ptr %walk, i64 %outputs)
  %i.1 = add i64 %i, 1
  %no_item = icmp eq ptr %item, null
  br i1 %no_item, label %drop, label %set
set:
  br i1 %is_list, label %in_list, label %in_tuple
in_list:
  %status.list = call i32 @PyList_SetItem(ptr %new, i64 %i, ptr %item)
  br label %next
in_tuple:
  %status.tuple = call i32 @PyTuple_SetItem(ptr %new, i64 %i, ptr %item)
  br label %next
drop:
  call void @Py_DecRef(ptr %new)
  br label %fail
done:
  ret ptr %new
fail:
  ret ptr null
}

; ---------------------------------------------------------------------------------------------------------------------
; Programs.

; A block of memory for one call: the one that the table keeps, or a new one. Null if there is no memory.
define internal ptr @acquire(ptr %table) {
  %cache = get ptr %table.cache
  %kept = atomicrmw xchg ptr %cache, ptr null acq_rel
  %none = icmp eq ptr %kept, null
  br i1 %none, label %allocate, label %done
allocate:
  %size = get i64 %table.size
  %new = call ptr @aligned_alloc(i64 64, i64 %size)
  ret ptr %new
done:
  ret ptr %kept
}

; The block may serve the next call.
define internal void @release(ptr %table, ptr %block) {
  %cache = get ptr %table.cache
  %kept = atomicrmw xchg ptr %cache, ptr %block acq_rel
  call void @free(ptr %kept)
  ret void
}

; From the homes to w, or back from y to the homes: runs of numbers that lie side by side.
define internal void @read_homes(ptr %table, ptr %w) {
  %single = get i64 %table.single
  %runs = get ptr %table.reads
  %end = get ptr %table.reads_end
  br label %next
next:
  %run = phi ptr [%runs, %0], [%run.1, %done]
  %finished = icmp eq ptr %run, %end
  br i1 %finished, label %finish, label %copy
copy:
  %home = get ptr %run.home
  %place = get i64 %run.place
  %count = get i64 %run.count
  %narrow = get i64 %run.narrow
  %to = getelementptr i8, ptr %w, i64 %place
  %run.1 = getelementptr i8, ptr %run, i64 $run_size
  %from_floats = icmp ne i64 %narrow, 0
  br i1 %from_floats, label %floats, label %doubles
floats:
  %to_floats = icmp ne i64 %single, 0
  br i1 %to_floats, label %same, label %widen
same:
  %bytes = shl i64 %count, 2
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %home, i64 %bytes, i1 false)
  br label %done
widen:
  call void @widen(ptr %to, ptr %home, i64 %count, i64 1)
  br label %done
doubles:
  %after = call ptr @narrow(ptr %to, ptr %home, i64 %count, i64 %single)
  br label %done
done:
  br label %next
finish:
  ret void
}

; What a program sets stands in narrow homes only if its numbers are floats.
define internal void @write_homes(ptr %table, ptr %y) {
  %single = get i64 %table.single
  %runs = get ptr %table.writes
  %end = get ptr %table.writes_end
  br label %next
next:
  %run = phi ptr [%runs, %0], [%run.1, %floats], [%run.1, %doubles]
  %finished = icmp eq ptr %run, %end
  br i1 %finished, label %done, label %copy
copy:
  %home = get ptr %run.home
  %place = get i64 %run.place
  %count = get i64 %run.count
  %narrow = get i64 %run.narrow
  %from = getelementptr i8, ptr %y, i64 %place
  %run.1 = getelementptr i8, ptr %run, i64 $run_size
  %to_floats = icmp ne i64 %narrow, 0
  br i1 %to_floats, label %floats, label %doubles
floats:
  %bytes = shl i64 %count, 2
  call void @llvm.memcpy.p0.p0.i64(ptr %home, ptr %from, i64 %bytes, i1 false)
  br label %next
doubles:
  call void @widen(ptr %home, ptr %from, i64 %count, i64 %single)
  br label %next
done:
  ret void
}

; Whether a call may begin, which counts as one: if the table knows all homes.
define internal i1 @begin(ptr %table) {
  %calls = get i64 %table.settled
  %is_settled = icmp sgt i64 %calls, 0
  br i1 %is_settled, label %count, label %refuse
count:
  %calls.left = sub i64 %calls, 1
  put i64 %calls.left, %table.settled
  ret i1 true
refuse:
  ret i1 false
}

; Whether a call that let other threads go on may end: if it sets nothing, or the table still knows the homes.
define internal i1 @may_end(ptr %table) {
  %calls = get i64 %table.settled
  %first = get ptr %table.writes
  %end = get ptr %table.writes_end
  %sets_nothing = icmp eq ptr %first, %end
  %in_homes = icmp sge i64 %calls, 0
  %may = or i1 %sets_nothing, %in_homes
  ret i1 %may
}

; main itself: on buffers, or, if it is alone, of nothing but constants.
define internal void @call_main(ptr %table, ptr %x, ptr %w, ptr %y, ptr %t, ptr %a) {
  %main = get ptr %table.main
  %alone = get i64 %table.alone
  switch i64 %alone, label %on_buffers [ i64 1, label %alone_float
                                         i64 2, label %alone_double ]
on_buffers: ; a is one too many for most
  call void %main(ptr %x, ptr %w, ptr %y, ptr %t, ptr %a)
  ret void
alone_float:
  %float = call float %main()
  store float %float, ptr %y
  ret void
alone_double:
  %double = call double %main()
  store double %double, ptr %y
  ret void
}

; Whether the numbers that must be indices are: whole, from -length up to length - 1. `walk` has y, where they are the
; last outputs; or x, and `early` has which of x each is.
define internal i1 @indices_fit(ptr %table, ptr %walk, ptr %early) {
  %outputs = get i64 %table.outputs
  %checks = get i64 %table.checks
  %lengths = get ptr %table.lengths
  %first = sub i64 %outputs, %checks
  %is_late = icmp eq ptr %early, null
  br label %next
next:
  %k = phi i64 [0, %0], [%k.1, %look]
  %more = icmp slt i64 %k, %checks
  br i1 %more, label %which, label %fit
which:
  %k.1 = add i64 %k, 1
  %late = add i64 %first, %k
  br i1 %is_late, label %look, label %of_x
of_x:
  %early.at = getelementptr i64, ptr %early, i64 %k
  %number = load i64, ptr %early.at
  br label %look
look:
  %i = phi i64 [%late, %which], [%number, %of_x]
  %x = call double @number_of(ptr %walk, i64 %i)
  %length.at = getelementptr double, ptr %lengths, i64 %k
  %length = load double, ptr %length.at
  %least = fneg double %length
  %floor = call double @llvm.floor.f64(double %x)
  %is_whole = fcmp oeq double %x, %floor
  %not_low = fcmp oge double %x, %least
  %not_high = fcmp olt double %x, %length
  %in_range = and i1 %not_low, %not_high
  %fits = and i1 %is_whole, %in_range
  br i1 %fits, label %next, label %misfit
fit:
  ret i1 true
misfit:
  ret i1 false
}

; The rest of a call whose x stands in the block; the block is released. `walk` is used anew. Null with an exception set,
; or without one if some index does not fit, or some number has moved meanwhile: nothing is changed then, and Python will
; see what is wrong.
define internal ptr @run(ptr %table, ptr %block, ptr %walk) {
  %x.offset = get i64 %table.x
  %w.offset = get i64 %table.w
  %y.offset = get i64 %table.y
  %t.offset = get i64 %table.t
  %x = getelementptr i8, ptr %block, i64 %x.offset
  %w.block = getelementptr i8, ptr %block, i64 %w.offset
  %y.block = getelementptr i8, ptr %block, i64 %y.offset
  %t = getelementptr i8, ptr %block, i64 %t.offset
  %a = get ptr %walk.apart
  %early = get ptr %table.early
  %is_late = icmp eq ptr %early, null
  br i1 %is_late, label %prepare, label %look_early
look_early:
  put ptr %x, %walk.number
  %fit_early = call i1 @indices_fit(ptr %table, ptr %walk, ptr %early)
  br i1 %fit_early, label %prepare, label %misfit
prepare:
  %over = get ptr %table.over
  %buffered = icmp eq ptr %over, null
  %y = select i1 %buffered, ptr %y.block, ptr %over
  %direct = get ptr %table.direct
  %copies = icmp eq ptr %direct, null
  br i1 %copies, label %read, label %go
read:
  call void @read_homes(ptr %table, ptr %w.block)
  br label %go
go:
  %w = phi ptr [%w.block, %read], [%direct, %prepare]
  %long_work = get i64 %table.long_work
  %is_short = icmp eq i64 %long_work, 0
  br i1 %is_short, label %short, label %long
short:
  call void @call_main(ptr %table, ptr %x, ptr %w, ptr %y, ptr %t, ptr %a)
  br label %finish
long: ; other threads may go on meanwhile
  %thread = call ptr @PyEval_SaveThread()
  call void @call_main(ptr %table, ptr %x, ptr %w, ptr %y, ptr %t, ptr %a)
  call void @PyEval_RestoreThread(ptr %thread)
  %in_homes = call i1 @may_end(ptr %table)
  br i1 %in_homes, label %finish, label %misfit
finish:
  %code = get ptr %table.answer
  put ptr %code, %walk.code
  put ptr %y.block, %walk.number
  br i1 %buffered, label %look, label %in_place
in_place: ; another call may come before the answer is built
  %outputs.over = get i64 %table.outputs
  %single = get i64 %table.single
  %shift = sub i64 3, %single
  %bytes = shl i64 %outputs.over, %shift
  call void @llvm.memcpy.p0.p0.i64(ptr %y.block, ptr %over, i64 %bytes, i1 false)
  br label %answer_it
look:
  %fit = call i1 @indices_fit(ptr %table, ptr %walk, ptr null)
  br i1 %fit, label %valid, label %misfit
valid:
  %wrong = get ptr %table.wrong
  %never_wrong = icmp eq ptr %wrong, null
  br i1 %never_wrong, label %write, label %ask
ask:
  %is_wrong = load i64, ptr %wrong
  store i64 0, ptr %wrong
  %is_right = icmp eq i64 %is_wrong, 0
  br i1 %is_right, label %write, label %misfit
misfit:
  call void @release(ptr %table, ptr %block)
  ret ptr null
write:
  call void @write_homes(ptr %table, ptr %y)
  br label %answer_it
answer_it:
  %outputs = get i64 %table.outputs
  %answer = call ptr @build(ptr %walk, i64 %outputs)
  call void @release(ptr %table, ptr %block)
  ret ptr %answer
}

; The walk over the arguments of a call for a program: its block with x filled in, or null.
define internal ptr @start(ptr %table, ptr %code, ptr %objects, i64 %n, ptr %walk) {
  %may_begin = call i1 @begin(ptr %table)
  br i1 %may_begin, label %allocate, label %refuse
allocate:
  %block = call ptr @acquire(ptr %table)
  %no_memory = icmp eq ptr %block, null
  br i1 %no_memory, label %refuse, label %arguments
arguments:
  %x.offset = get i64 %table.x
  %x = getelementptr i8, ptr %block, i64 %x.offset
  %single = get i64 %table.single
  put ptr %code, %walk.code
  put ptr %x, %walk.number
  put i64 %single, %walk.single
  %apart = get i64 %table.apart
  %a.of.x = getelementptr i8, ptr %x, i64 %apart
  %a.given = get ptr %table.a
  %a.is.of.x = icmp eq ptr %a.given, null
  %a = select i1 %a.is.of.x, ptr %a.of.x, ptr %a.given
  %borrows = get i64 %table.borrows
  put ptr %a, %walk.apart
  put i64 %borrows, %walk.borrows
  put ptr %block, %walk.block
  %slots = get i64 %table.value_slots
  %last_slot = sub i64 %slots, 1
  %has_values = icmp ne i64 %slots, 0
  %mask = select i1 %has_values, i64 %last_slot, i64 0
  put i64 %mask, %walk.mask
  br i1 %has_values, label %clear_slots, label %objects.taken
clear_slots:
  %seen.offset = get i64 %table.seen
  %seen = getelementptr i8, ptr %block, i64 %seen.offset
  %seen.bytes = shl i64 %slots, 3
  call void @llvm.memset.p0.i64(ptr %seen, i8 0, i64 %seen.bytes, i1 false)
  put ptr %seen, %walk.seen
  br label %objects.taken
objects.taken:
  %taken = call i1 @take(ptr %walk, ptr %objects, i64 %n)
  br i1 %taken, label %done, label %give_back
give_back:
  call void @release(ptr %table, ptr %block)
  br label %refuse
done:
  ret ptr %block
refuse:
  ret ptr null
}

; The names of a call's named arguments must be the very strings that the form has.
define internal i1 @same_names(ptr %form, ptr %names) {
  %named = get i64 %form.named
  %expected = get ptr %form.names
  %none = icmp eq ptr %names, null
  br i1 %none, label %compare, label %size
size:
  %some = get i64 %names.ob_size
  br label %compare
compare:
  %n = phi i64 [0, %0], [%some, %size]
  %right = icmp eq i64 %n, %named
  br i1 %right, label %next, label %refuse
next:
  %i = phi i64 [0, %compare], [%i.1, %name]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %name, label %done
name:
  %items = getelementptr i8, ptr %names, i64 $tuple_items
  %at = getelementptr i64, ptr %items, i64 %i
  %expected.at = getelementptr i64, ptr %expected, i64 %i
  %given = load i64, ptr %at
  %wanted = load i64, ptr %expected.at
  %is_same = icmp eq i64 %given, %wanted
  %i.1 = add i64 %i, 1
  br i1 %is_same, label %next, label %refuse
done:
  ret i1 true
refuse:
  ret i1 false
}

; function(*args, **kwargs) of Python's; the values of the names come after the positional arguments.
define internal ptr @call_python(ptr %function, ptr %args, i64 %positional, ptr %names) {
  %no_names = icmp eq ptr %names, null
  br i1 %no_names, label %call, label %named
named:
  %dict = call ptr @PyDict_New()
  %no_dict = icmp eq ptr %dict, null
  br i1 %no_dict, label %fail, label %size
size:
  %n = get i64 %names.ob_size
  %items = getelementptr i8, ptr %names, i64 $tuple_items
  %values = getelementptr ptr, ptr %args, i64 %positional
  br label %next
next:
  %i = phi i64 [0, %size], [%i.1, %name]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %name, label %call
name:
  %key.at = getelementptr ptr, ptr %items, i64 %i
  %value.at = getelementptr ptr, ptr %values, i64 %i
  %key = load ptr, ptr %key.at
  %value = load ptr, ptr %value.at
  %i.1 = add i64 %i, 1
  %status = call i32 @PyDict_SetItem(ptr %dict, ptr %key, ptr %value)
  %failed = icmp ne i32 %status, 0
  br i1 %failed, label %drop, label %next
call:
  %kwargs = phi ptr [null, %0], [%dict, %next]
  %result = call ptr @PyObject_VectorcallDict(ptr %function, ptr %args, i64 %positional, ptr %kwargs)
  br i1 %no_names, label %done, label %tidy
tidy:
  call void @Py_DecRef(ptr %kwargs)
  br label %done
done:
  ret ptr %result
drop:
  call void @Py_DecRef(ptr %dict)
  br label %fail
fail:
  ret ptr null
}

; ---------------------------------------------------------------------------------------------------------------------
; What Python calls. `self` is a ctypes structure.

; f(*args, **kwargs) of a Dispatch: by the first of its forms that the arguments fit, else by its Python function.
define ptr @entry(ptr %self, ptr %args, i64 %positional, ptr %names) {
  %walk = alloca [8 x i64]
  %dispatch = get ptr %self.b_ptr
  %turn = load i64, ptr inttoptr (i64 $turn to ptr)
  %nobody_traces = icmp eq i64 %turn, 0
  br i1 %nobody_traces, label %forms, label %who
who:
  %me = call i64 @PyThread_get_thread_ident()
  %we_trace = icmp eq i64 %me, %turn
  br i1 %we_trace, label %slow, label %forms
forms:
  %first = get ptr %dispatch.forms
  br label %next
next:
  %at = phi ptr [%first, %forms], [%at.1, %another]
  %form = load ptr, ptr %at
  %no_more = icmp eq ptr %form, null
  br i1 %no_more, label %slow, label %count
count:
  %expected = get i64 %form.positional
  %right_count = icmp eq i64 %expected, %positional
  br i1 %right_count, label %compare_names, label %another
compare_names:
  %right_names = call i1 @same_names(ptr %form, ptr %names)
  br i1 %right_names, label %try, label %another
try:
  %table = get ptr %form.table
  %code = get ptr %form.code
  %named = get i64 %form.named
  %n = add i64 %positional, %named
  %block = call ptr @start(ptr %table, ptr %code, ptr %args, i64 %n, ptr %walk)
  %refused = icmp eq ptr %block, null
  br i1 %refused, label %another, label %run
another:
  %at.1 = getelementptr ptr, ptr %at, i64 1
  br label %next
run:
  %answer = call ptr @run(ptr %table, ptr %block, ptr %walk)
  %no_answer = icmp eq ptr %answer, null
  br i1 %no_answer, label %why, label %done
why:
  %error = call ptr @PyErr_Occurred()
  %failed = icmp ne ptr %error, null
  br i1 %failed, label %done, label %slow
done:
  ret ptr %answer
slow:
  %function = get ptr %dispatch.slow
  %result = call ptr @call_python(ptr %function, ptr %args, i64 %positional, ptr %names)
  ret ptr %result
}

; call(numbers) of a Table: the answer to a list of just the numbers of x, or NotImplemented.
define ptr @on_numbers(ptr %self, ptr %numbers) {
  %walk = alloca [8 x i64]
  %argument = alloca ptr
  store ptr %numbers, ptr %argument
  %table = get ptr %self.b_ptr
  %code = get ptr %table.numbers
  %block = call ptr @start(ptr %table, ptr %code, ptr %argument, i64 1, ptr %walk)
  %refused = icmp eq ptr %block, null
  br i1 %refused, label %refuse, label %run
run:
  %answer = call ptr @run(ptr %table, ptr %block, ptr %walk)
  %no_answer = icmp eq ptr %answer, null
  br i1 %no_answer, label %why, label %done
why:
  %error = call ptr @PyErr_Occurred()
  %failed = icmp ne ptr %error, null
  br i1 %failed, label %done, label %refuse
done:
  ret ptr %answer
refuse:
  call void @Py_IncRef(ptr inttoptr (i64 $NotImplemented to ptr))
  ret ptr inttoptr (i64 $NotImplemented to ptr)
}

; The numbers in the homes that a table knows, for code that has no entry of its own. Whether it knows them.
define i1 @read_weights(ptr %table, ptr %w) {
  %may_begin = call i1 @begin(ptr %table)
  br i1 %may_begin, label %read, label %refuse
read:
  call void @read_homes(ptr %table, ptr %w)
  ret i1 true
refuse:
  ret i1 false
}

; What is set, behind the answer in y, into the homes. Whether no number has left since the weights were read.
define i1 @write_results(ptr %table, ptr %y) {
  %in_homes = call i1 @may_end(ptr %table)
  br i1 %in_homes, label %write, label %refuse
write:
  call void @write_homes(ptr %table, ptr %y)
  ret i1 true
refuse:
  ret i1 false
}

; Each of n rows, of as many doubles as x has, into a row of answers. Whether it could.
define i1 @on_rows(ptr %table, ptr %rows, ptr %answers, i64 %n) {
  %may_begin = call i1 @begin(ptr %table)
  br i1 %may_begin, label %allocate, label %refuse
allocate:
  %block = call ptr @acquire(ptr %table)
  %no_memory = icmp eq ptr %block, null
  br i1 %no_memory, label %refuse, label %begin
begin:
  %x.offset = get i64 %table.x
  %w.offset = get i64 %table.w
  %y.offset = get i64 %table.y
  %t.offset = get i64 %table.t
  %x = getelementptr i8, ptr %block, i64 %x.offset
  %w = getelementptr i8, ptr %block, i64 %w.offset
  %y = getelementptr i8, ptr %block, i64 %y.offset
  %t = getelementptr i8, ptr %block, i64 %t.offset
  %apart = get i64 %table.apart
  %a = getelementptr i8, ptr %x, i64 %apart
  %single = get i64 %table.single
  %inputs = get i64 %table.inputs
  %outputs = get i64 %table.outputs
  %shift = sub i64 3, %single
  %bytes = shl i64 %outputs, %shift
  call void @read_homes(ptr %table, ptr %w)
  %thread = call ptr @PyEval_SaveThread()
  br label %next
next:
  %i = phi i64 [0, %begin], [%i.1, %row]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %row, label %done
row:
  %first = mul i64 %i, %inputs
  %from = getelementptr double, ptr %rows, i64 %first
  %after = call ptr @narrow(ptr %x, ptr %from, i64 %inputs, i64 %single)
  call void @call_main(ptr %table, ptr %x, ptr %w, ptr %y, ptr %t, ptr %a)
  %offset = mul i64 %i, %bytes
  %to = getelementptr i8, ptr %answers, i64 %offset
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %y, i64 %bytes, i1 false)
  %i.1 = add i64 %i, 1
  br label %next
done:
  call void @PyEval_RestoreThread(ptr %thread)
  call void @release(ptr %table, ptr %block)
  ret i1 true
refuse:
  ret i1 false
}
