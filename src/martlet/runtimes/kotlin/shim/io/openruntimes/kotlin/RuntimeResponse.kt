package io.openruntimes.kotlin

import io.openruntimes.Output
import martlet.Json

/** A response. */
class RuntimeOutput(
    private val body: ByteArray,
    private val statusCode: Int,
    private val headers: Map<String, String>,
) : Output {
    override fun getBody(): ByteArray = body

    override fun getStatusCode(): Int = statusCode

    override fun getHeaders(): Map<String, String> = headers
}

/** Makes responses. */
class RuntimeResponse {
    fun binary(bytes: ByteArray, statusCode: Int = 200, headers: Map<String, String> = mapOf()) =
        RuntimeOutput(bytes, statusCode, headers)

    fun text(body: String, statusCode: Int = 200, headers: Map<String, String> = mapOf()) =
        output(body, statusCode, headers, "content-type" to "text/plain")

    /** An older name of [text]. */
    fun send(body: String, statusCode: Int = 200, headers: Map<String, String> = mapOf()) =
        text(body, statusCode, headers)

    fun json(json: Map<String, Any?>, statusCode: Int = 200, headers: Map<String, String> = mapOf()) =
        output(Json.write(json), statusCode, headers, "content-type" to "application/json")

    fun empty() = RuntimeOutput(ByteArray(0), 204, mapOf())

    fun redirect(url: String, statusCode: Int = 301, headers: Map<String, String> = mapOf()) =
        output("", statusCode, headers, "location" to url)

    private fun output(body: String, statusCode: Int, headers: Map<String, String>, usual: Pair<String, String>) =
        RuntimeOutput(body.toByteArray(), statusCode, mapOf(usual) + headers.mapKeys { it.key.lowercase() })
}
