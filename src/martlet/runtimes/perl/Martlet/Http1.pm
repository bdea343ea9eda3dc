# HTTP/1.1 as functions of bytes: heads of requests, and responses (RFC 9112).
package Martlet::Http1;

use strict;
use warnings;
use Martlet::Text;

our $FIELD = qr/\A([!#\$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*?)[ \t]*\z/;
my %OURS = map { $_ => 1 } qw(connection content-length keep-alive transfer-encoding);
my %REASONS = (
    200 => 'OK', 201 => 'Created', 202 => 'Accepted', 203 => 'Non-Authoritative Information', 204 => 'No Content',
    206 => 'Partial Content', 300 => 'Multiple Choices', 301 => 'Moved Permanently', 302 => 'Found',
    303 => 'See Other', 304 => 'Not Modified', 307 => 'Temporary Redirect', 308 => 'Permanent Redirect',
    400 => 'Bad Request', 401 => 'Unauthorized', 403 => 'Forbidden', 404 => 'Not Found',
    405 => 'Method Not Allowed', 409 => 'Conflict', 410 => 'Gone', 413 => 'Content Too Large',
    415 => 'Unsupported Media Type', 418 => "I'm a Teapot", 422 => 'Unprocessable Content',
    429 => 'Too Many Requests', 431 => 'Request Header Fields Too Large', 500 => 'Internal Server Error',
    501 => 'Not Implemented', 502 => 'Bad Gateway', 503 => 'Service Unavailable', 504 => 'Gateway Timeout',
);

# Dies with what `problem` answers: the peer sent what is not acceptable HTTP.
sub refuse {
    my ($message, $status) = @_;
    die bless { message => $message, status => $status || 400 }, 'Martlet::BadRequest';
}

# Reads a head: method, target, fields (lower-case names), length (undef: chunked), chunks and keep_alive.
sub parse_head {
    my ($first, @lines) = split /\r\n/, $_[0], -1;
    my ($method, $target, $minor) =
        ($first // '') =~ m{\A([!#\$%&'*+\-.^_`|~0-9A-Za-z]+) (/[!-~\x80-\xff]*|\*) HTTP/1\.([01])\z}
        or refuse('this is not an HTTP/1.1 request');
    my %fields;
    for (@lines) {
        my ($name, $value) = /$FIELD/ or refuse('a header is malformed');
        ($name, $value) = (lc $name, Martlet::Text::of_head($value));
        $fields{$name} =
            exists $fields{$name} ? join($name eq 'cookie' ? '; ' : ', ', $fields{$name}, $value) : $value;
    }
    return {
        method => $method, target => $target, fields => \%fields, length => body_length(\%fields),
        chunks => $minor == 1, keep_alive => $minor == 1 && ($fields{connection} // '') !~ /close/i,
    };
}

sub body_length {
    my ($length, $coding) = @{ $_[0] }{qw(content-length transfer-encoding)};
    if (defined $coding) {
        refuse('a body must either have a content-length or be chunked') if defined $length || lc $coding ne 'chunked';
        return undef;
    }
    return 0 unless defined $length;
    refuse('content-length must be a number of bytes') unless $length =~ /\A[0-9]{1,15}\z/;
    return $length + 0;
}

# Writes headers as they stand on the wire, a list as several. Those that frame the body are left out.
# Dies where a name or value would end its line.
sub header_lines {
    my ($headers) = @_;
    my $lines = '';
    for my $name (sort keys %$headers) {
        for my $value (ref $headers->{$name} eq 'ARRAY' ? @{ $headers->{$name} } : $headers->{$name}) {
            my $line = Martlet::Text::bytes(lc($name) . ": $value");
            die "$name: this value cannot be sent as a header\n" if $line !~ $FIELD;
            $lines .= "$line\r\n" unless $OURS{ lc $name };
        }
    }
    return $lines;
}

# The head of a response.
sub start {
    my ($status, $lines, $keep_alive) = @_;
    my $reason = $REASONS{$status} // 'Unknown';
    return "HTTP/1.1 $status $reason\r\n$lines" . ($keep_alive ? '' : "connection: close\r\n") . "\r\n";
}

# All of a response whose body is known.
sub whole {
    my ($head, $status, $lines, $body) = @_;
    my $bare = $status == 204 || $status == 304;
    $lines .= 'content-length: ' . length($body) . "\r\n" unless $bare;
    return start($status, $lines, $head->{keep_alive}) . ($bare || $head->{method} eq 'HEAD' ? '' : $body);
}

sub chunk {
    return sprintf("%x\r\n", length $_[0]) . "$_[0]\r\n";
}

# The response to a malformed request.
sub problem {
    my ($error) = @_;
    my $lines = "content-type: text/plain\r\ncontent-length: " . length($error->{message}) . "\r\n";
    return start($error->{status}, $lines, 0) . $error->{message};
}

1;
