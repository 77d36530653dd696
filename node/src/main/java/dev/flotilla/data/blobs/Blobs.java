package dev.flotilla.data.blobs;

import dev.flotilla.cluster.Fence;
import java.io.InputStream;
import java.util.List;
import java.util.Optional;

/**
 * Contents of any size, kept whole on several nodes under the digest of what they are.
 *
 * <p>A blob's digest is {@code sha256:} and the SHA-256 of its content in hexadecimal. A blob stays
 * as long as something refers to it: a name in a bucket, or the digest itself in a bucket, which is
 * what {@link #put} leaves behind. What nothing refers to is deleted after a delay, a day unless
 * configured otherwise. Buckets come into being by use; their names, and those in them, are of
 * letters, digits, {@code . _ -}, 128 at most per part; a name in a bucket may have several parts,
 * joined by slashes, 512 characters at most. A blob holds 256 GiB at most.
 *
 * <p>Errors of all calls: {@code INVALID} for a malformed digest, bucket, name or range, {@code
 * NOT_FOUND}, {@code TOO_LARGE} if a bucket's quota would be exceeded, {@code CONFLICT} for a
 * version, offset or fencing token that is not the current one, {@code STORAGE} if disks are full,
 * {@code UNAVAILABLE} if not enough nodes answer, {@code NO_MAJORITY}, {@code OUTCOME_UNKNOWN},
 * {@code BUSY} if too many blobs are read or written through this node at once.
 */
public interface Blobs {

  /** The bucket of those who name none. */
  String DEFAULT_BUCKET = "default";

  /** A content and how many bytes it has. */
  record Blob(String digest, long size) {}

  /**
   * What a bucket holds under a name.
   *
   * @param name a name, or the digest itself for what was put without one
   * @param version 1 when new, and one more at each change
   */
  record Reference(
      String bucket, String name, String digest, long size, long version, long updatedAtMs) {}

  /**
   * An upload that goes on where it stopped, on any node.
   *
   * @param offset how many bytes are safe
   */
  record Upload(String id, String bucket, long offset, long createdAtMs) {}

  /**
   * What a bucket's references add up to, and what they may; each counts with its whole size.
   *
   * @param bytesMax {@link Long#MAX_VALUE} if nothing was set, as {@code countMax}
   */
  record Quota(String bucket, long bytes, long count, long bytesMax, long countMax) {}

  /**
   * One node's part.
   *
   * @param damaged chunks found damaged or cut short since the node started
   * @param repaired chunks of which it got a new copy since it started
   * @param scrubbed chunks read and compared in the current or last scrub
   */
  record NodeState(
      String node,
      boolean answers,
      long chunks,
      long bytes,
      long freeBytes,
      long damaged,
      long repaired,
      long scrubbed,
      boolean scrubbing,
      long scrubFinishedAtMs) {}

  /** Keeps a content, referred to by its digest in the bucket. The stream is read to its end. */
  Blob put(String bucket, InputStream content);

  /** The blob, if it is there. */
  Optional<Blob> find(String digest);

  /**
   * Bytes of a blob, each checked against its digest before it is handed out; close it.
   *
   * @param length at most so many
   */
  InputStream read(String digest, long offset, long length);

  /**
   * Makes a name refer to a blob.
   *
   * @param version if given, the name's current version, or 0 if it must be new
   * @param fence if given, the right to move it
   */
  Reference name(
      String bucket, String name, String digest, Optional<Long> version, Optional<Fence> fence);

  /** What a name, or a digest, refers to in a bucket. */
  Optional<Reference> reference(String bucket, String name);

  /** References in the order of their names, those after {@code after} that begin with a prefix. */
  List<Reference> list(String bucket, String prefix, String after, int limit);

  /** Takes a name, or a digest, out of a bucket; whether it was there. */
  boolean remove(String bucket, String name, Optional<Fence> fence);

  /** Begins an upload; it is kept for a day after its last byte. */
  Upload startUpload(String bucket);

  /** Where an upload is. */
  Upload upload(String id);

  /**
   * Adds to an upload. If the stream breaks, what came before is kept.
   *
   * @param offset where the bytes belong: {@link Upload#offset}
   */
  Upload append(String id, long offset, InputStream content);

  /** Makes a blob of an upload; with an expected digest, only if that is its content's. */
  Blob complete(String id, Optional<String> digest);

  /** Forgets an upload. */
  void abandon(String id);

  /** A bucket's quota and what is used of it. */
  Quota quota(String bucket);

  /** Bounds a bucket. What is over already stays. */
  Quota limit(String bucket, long bytesMax, long countMax);

  /** Starts reading and comparing all chunks, on every node. */
  List<NodeState> scrub();

  /** Each node's part. */
  List<NodeState> nodes();
}
