package io.openruntimes.kotlin

import io.openruntimes.Call
import martlet.Json

/** A request. */
class RuntimeRequest(private val call: Call) {
    val method: String get() = call.request.method
    val scheme: String get() = call.scheme
    val host: String get() = call.host
    val port: Int get() = call.port
    val url: String get() = call.url
    val path: String get() = call.request.path
    val queryString: String get() = call.request.queryString
    val query: MutableMap<String, String> = call.query
    val headers: MutableMap<String, String> = call.headers
    val bodyBinary: ByteArray get() = call.request.body
    val bodyText: String get() = call.request.text

    /** An older name of [bodyText]. */
    val bodyRaw: String get() = bodyText

    /** The body, an object of JSON. */
    @Suppress("UNCHECKED_CAST")
    val bodyJson: MutableMap<String, Any>
        get() = Json.read(bodyText) as MutableMap<String, Any>

    /** The body: an object where the content-type is JSON, else text. */
    val body: Any get() = call.body
}
