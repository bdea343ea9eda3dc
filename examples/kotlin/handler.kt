import martlet.Request
import martlet.Response

data class Line(val text: String, val words: Int)

data class Summary(val lines: Int, val words: Int, val longest: Line?, val common: List<String>)

/** What is in a text that is posted: its size, its longest line, its most common words. */
fun handle(request: Request): Any {
    if (request.method != "POST") return Response.of(mapOf("error" to "POST a text")).status(405).header("allow", "POST")
    val lines = request.text.lines().filter { it.isNotBlank() }.map { Line(it.trim(), wordsOf(it).size) }
    val words = wordsOf(request.text)
    val common = words.groupingBy { it }.eachCount().entries
        .sortedWith(compareByDescending<Map.Entry<String, Int>> { it.value }.thenBy { it.key })
    return Summary(lines.size, words.size, lines.maxByOrNull { it.words }, common.take(3).map { it.key })
}

private val word = Regex("""[\p{L}\p{N}']+""")

private fun wordsOf(text: String) = word.findAll(text.lowercase()).map { it.value }.toList()
