<?php
// PHP's curl: one GET and one POST at URL; prints everything that came back, fields included.

foreach (["/echo/fields" => null, "/echo/body" => str_repeat("x", 4096)] as $path => $body) {
    $handle = curl_init($argv[1] . $path);
    $options = [CURLOPT_RETURNTRANSFER => true, CURLOPT_HEADER => true, CURLOPT_FAILONERROR => true];
    curl_setopt_array($handle, $options + ($body === null ? [] : [CURLOPT_POSTFIELDS => $body]));
    $answer = curl_exec($handle);
    if ($answer === false) {
        fwrite(STDERR, curl_error($handle) . "\n");
        exit(1);
    }
    echo $answer, "\n";
}
