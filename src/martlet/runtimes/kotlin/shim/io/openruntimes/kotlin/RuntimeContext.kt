package io.openruntimes.kotlin

import io.openruntimes.Call

/** What a function of Open Runtimes is given. */
class RuntimeContext(private val call: Call) {
    /** The request. */
    val req = RuntimeRequest(call)

    /** What makes responses. */
    val res = RuntimeResponse()

    /** Writes a line of the log. */
    fun log(vararg messages: Any?) = call.log("info", messages)

    /** Writes a line of the log that is an error. */
    fun error(vararg messages: Any?) = call.log("error", messages)
}
