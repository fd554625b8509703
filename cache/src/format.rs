//! The versions of what is written, in keys and on disk.

/// The format of every key: the fields that are hashed, and their encoding.
pub const KEY_FORMAT: u32 = 2;

/// The format of the folder: the layout, the index and the records. A folder of another format is
/// refused, never guessed at.
///
/// 3: the shape key is called that in the index and the records (before: skeleton), the versioned
/// methods of a kind are its components (before: parts), and records hold `recipe_key` and `recipe`
/// (before: `recipe` and `document`).
pub const FOLDER_FORMAT: u32 = 3;
