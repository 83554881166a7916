/* Tells ThreadSanitizer of critical sections: their locks are inside a CPython that was built without it. */
#include <Python.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

static inline void told_begin(PyCriticalSection *section, PyObject *object)
{
    PyCriticalSection_Begin(section, object);
    __tsan_acquire(&object->ob_mutex);
}

static inline void told_end(PyCriticalSection *section)
{
    if (section->_cs_mutex)
        __tsan_release(section->_cs_mutex);
    PyCriticalSection_End(section);
}

#define PyCriticalSection_Begin told_begin
#define PyCriticalSection_End told_end
