import java.util.concurrent.atomic.AtomicInteger
import java.util.logging.Logger
import kotlin.system.exitProcess
import martlet.Request
import martlet.Response

private val logger = Logger.getLogger("contract")
private val count = AtomicInteger()

data class Greeting(val hello: String, val unicode: String, val list: List<Any?>)

/** What every runtime is tested with. */
fun handle(request: Request): Any? = when (request.path) {
    "/json" -> Greeting("world", "żółw 🐢", listOf(1, 2.5, null, true))
    "/echo" -> Response.of(request.body).header("content-type", request.getHeader("Content-Type"))
    "/inspect" -> mapOf(
        "method" to request.method,
        "path" to request.path,
        "query" to request.query,
        "headers" to request.headers,
        "length" to request.body.size,
    )
    "/text" -> "text ✓"
    "/binary" -> ByteArray(256) { it.toByte() }
    "/empty" -> null
    "/status" -> Response.of("teapot").status(418).header("x-colour", "blue")
    "/raise" -> throw IllegalStateException("the reason ✗")
    "/crash" -> exitProcess(3)
    "/sleep" -> {
        val slept = request.query.getValue("ms").toLong()
        Thread.sleep(slept)
        mapOf("slept" to slept)
    }
    "/environment" -> mapOf("GREETING" to System.getenv("GREETING"))
    "/log" -> {
        println("to stdout ✓")
        System.err.println("to stderr")
        logger.warning("a warning")
        "logged"
    }
    "/say" -> {
        logger.warning("${request.query["word"]} before")
        Thread.sleep(100)
        logger.warning("${request.query["word"]} after")
        "said"
    }
    "/count" -> mapOf("count" to count.incrementAndGet())
    "/stream" -> sequence {
        yield("one\n")
        Thread.sleep(300)
        yield("two\n")
    }
    "/length" -> mapOf("length" to request.body.size)
    "/large" -> "x".repeat(5_000_000)
    "/split" -> Response.of("").header("x-colour", "blue\r\nx-other: 1")
    "/unmodified" -> Response.of("unseen").status(304)
    "/break" -> sequence {
        yield("one\n")
        throw IllegalStateException("the reason")
    }
    else -> Response.of(mapOf("error" to "no such path")).status(404)
}
