package io.openruntimes.kotlin

class Main {
    fun main(context: RuntimeContext): RuntimeOutput? {
        val req = context.req
        val res = context.res
        return when (req.path) {
            "/text" -> res.text("text ✓")
            "/json" -> res.json(mutableMapOf("hello" to "world", "unicode" to "żółw 🐢"))
            "/binary" -> res.binary(ByteArray(256) { it.toByte() })
            "/empty" -> res.empty()
            "/redirect" -> res.redirect("/target")
            "/request" -> res.json(
                mutableMapOf(
                    "method" to req.method,
                    "url" to req.url,
                    "scheme" to req.scheme,
                    "host" to req.host,
                    "port" to req.port,
                    "path" to req.path,
                    "query" to req.query,
                    "queryString" to req.queryString,
                    "headers" to req.headers,
                    "bodyText" to req.bodyText,
                ),
            )
            "/body" -> res.json(req.bodyJson)
            "/log" -> {
                context.log("info line")
                context.error("error line")
                res.text("logged")
            }
            "/nothing" -> null
            "/raise" -> throw IllegalStateException("the reason ✗")
            else -> res.text("no such path", statusCode = 404)
        }
    }
}
