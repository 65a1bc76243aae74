import fc from 'fast-check'

/** Markup that is likely to break a parser, as pieces to be put together at random. */
export const hostileHtml = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        ...'<p>|</p>|<div>|</div>|<a href=x>|</a>|<table>|<tr>|<td>|</table>|<li>|</ul>|<ul>|<svg>|</svg>|<math>|<br>|<br/>|<pre>|</pre>|<script>|</script>|<style>|<title>|</title>|<template>|<!--|-->|<![CDATA[|]]>|<p hidden>|<h1>|</h2>|<b style="display:none">|<foreignObject>|<select>|<button>|&amp;|&#x110000;|&notit|<a b=\'|"|<|>|</|<html>|</body>'.split(
          '|',
        ),
      ),
      fc.string({ unit: 'grapheme', maxLength: 12 }),
      fc.string({ unit: 'binary', maxLength: 5 }),
    ),
    { maxLength: 60 },
  )
  .map((pieces) => pieces.join(''))
